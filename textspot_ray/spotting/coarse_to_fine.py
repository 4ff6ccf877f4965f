"""Large images from coarse to fine: finer passes are made only where a coarser one hints at text.

A detector's score map holds more than its words: what is too low to be found still lifts the score
of its place. So a pass over a whole image is also asked for its map, and of the tiles of the next
finer level only those are looked at that are needed to show every hint.

Detectors that give no map say nothing of small text, and all their tiles are looked at but those
without any contrast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Detection
from textspot_ray.spotting.cutting import MAX_PARTS, look_closer
from textspot_ray.spotting.geometry import Box
from textspot_ray.spotting.tiling import TileWindow, level_tiles

if TYPE_CHECKING:
    from textspot_ray.spotting.family import WindowFindings

EvidenceMap = NDArray[np.float32]  # H x W over a window, 0 to 1: whether a place is inside text

# `python -m jobs.bench.coarse_to_fine` gives what other values of these would lose and cost.
HINT_SCORE = 0.2  # places with more are inside text that may be too low to be found
LEAST_CELLS = 4  # of a hint, cells of the map
SEEN_WELL_PX = 16.0  # input px: words as high as that gain nothing from a finer pass
_OWN_SHARE = 0.15  # of a word's area: a hint in it that fills less is other, lower text
_MARGIN = 2.0  # times a hint's height: what a window shows around it
# A small window costs a quarter of a tile. One of many hints is shown as a whole, as a page is.
MOST_HINTS = 12
MOST_SMALL = 3
# A step from one level to the next finer one, at most: of what is smaller there is no hint left.
MAX_STEP = 3.0
FLAT_LEVELS = 24  # grey levels, in a tile as the detector sees it: less contrast shows no letter
_FLAT_BLOCK = 8  # px, in which contrast is looked for
COARSE_TO_FINE = "coarse to fine"  # in fingerprints, with all of the above
RULES = (
    f"{COARSE_TO_FINE}: score {HINT_SCORE:g}, {LEAST_CELLS} cells, seen at {SEEN_WELL_PX:g} px, "
    f"step {MAX_STEP:g}, flat {FLAT_LEVELS}, {MOST_SMALL} small windows of {MOST_HINTS}"
)


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """The levels of an image, the whole image first.

    Attributes:
        width: Of the image, pixels.
        height: Of the image, pixels.
        levels: Windows of each level, coarsest level first; the first is the whole image alone.
        small: Width and height, input px, of windows around single hints; None: whole tiles only.
    """

    width: int
    height: int
    levels: tuple[tuple[TileWindow, ...], ...]
    small: tuple[int, int] | None = None


def plan_levels(
    width: int,
    height: int,
    input_size: tuple[int, int],
    over: float,
    share: float,
    small: tuple[int, int] | None = None,
) -> LevelPlan:
    """Levels from the whole image to windows shrunk by ``over``, in even steps.

    Args:
        width: Of the image, pixels.
        height: Of the image, pixels.
        input_size: Width and height of the model's input.
        over: As of `tiling.plan_passes`, whose finest tiles these are too.
        share: Overlap of neighbouring tiles.
        small: Of `LevelPlan`.
    """
    input_width, input_height = input_size
    shrink = max(width / input_width, height / input_height)
    levels: list[tuple[TileWindow, ...]] = [(TileWindow(0, 0, width, height, shrink),)]
    if over < shrink:
        steps = math.ceil(math.log(shrink / over) / math.log(MAX_STEP) - 1e-9)
        for step in range(steps - 1, -1, -1):
            level = over * (shrink / over) ** (step / steps)
            levels.append(level_tiles(width, height, input_width, input_height, level, share))
    return LevelPlan(width, height, tuple(levels), small)


def look_from_coarse_to_fine(
    plan: LevelPlan,
    look: Callable[[TileWindow], WindowFindings],
    shrink_of: Callable[[int, int], float],
    overlap: float,
    zoom_below: float = 0.0,
) -> tuple[list[tuple[TileWindow, WindowFindings]], bool]:
    """Make the whole image's pass, and finer ones where it, or one of them, hints at text.

    Args:
        plan: The levels.
        look: Makes a pass.
        shrink_of: As of `cutting.look_closer`, which cuts passes that hold too much; the rest too.
        overlap: Of neighbouring parts.
        zoom_below: Of words, input px.

    Returns:
        Passes and what they found, and whether a full one could not be cut any more.
    """
    made: list[tuple[TileWindow, WindowFindings]] = []
    wanted: Sequence[TileWindow] = plan.levels[0]
    left, lost = MAX_PARTS, False
    found: list[tuple[TileWindow, WindowFindings]] = []
    for level in plan.levels:
        if made:
            hints = [h for window, f in found for h in hints_of(f.evidence, window, f.detections)]
            wanted = covering(level, hints, plan)
        if not wanted:
            break
        found, full = look_closer(wanted, look, shrink_of, overlap, zoom_below, left)
        left -= len(found) - len(wanted)
        lost = lost or full
        made += found
    return made, lost


def hints_of(
    evidence: EvidenceMap | None, window: TileWindow, detections: Sequence[Detection]
) -> list[Box]:
    """Boxes, in pixels of the image, of what may be text too low to be seen well in a window.

    Args:
        evidence: The detector's map over the window; None hints at nothing.
        window: The pass.
        detections: What it found there.
    """
    if evidence is None:
        return []
    rows, columns = evidence.shape
    lit = (evidence > HINT_SCORE).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=8)
    if count == 1:
        return []
    per_x, per_y = window.width / columns, window.height / rows
    areas = stats[:, cv2.CC_STAT_AREA]
    seen = np.zeros(count, bool)
    for detection in detections:
        quad = np.array(detection.polygon, np.float64).reshape(4, 2)
        sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
        if sides.min() < SEEN_WELL_PX * window.shrink:
            continue
        quad = (quad - (window.x, window.y)) / (per_x, per_y)
        low = np.floor(quad.min(axis=0)).astype(int).clip(0, (columns - 1, rows - 1))
        high = np.ceil(quad.max(axis=0)).astype(int).clip(0, (columns - 1, rows - 1))
        inside = np.zeros((high[1] - low[1] + 1, high[0] - low[0] + 1), np.uint8)
        cv2.fillConvexPoly(inside, np.round(quad - low).astype(np.int32), (1,))
        part = labels[low[1] : high[1] + 1, low[0] : high[0] + 1]
        covered = np.bincount(part[inside > 0], minlength=count)
        own = areas >= _OWN_SHARE * max(1, int(inside.sum()))
        seen |= (covered > areas / 2) & own
    hints = []
    for number in range(1, count):
        if seen[number] or areas[number] < LEAST_CELLS:
            continue
        x, y, w, h = stats[number, :4].tolist()
        hints.append(
            (
                window.x + x * per_x,
                window.y + y * per_y,
                window.x + (x + w) * per_x,
                window.y + (y + h) * per_y,
            )
        )
    return hints


def covering(
    tiles: Sequence[TileWindow],
    hints: Sequence[Box],
    plan: LevelPlan,
) -> list[TileWindow]:
    """Windows that show each hint, whole and clear of inner edges where a tile of the level does.

    A tile that few hints ask for is replaced by small windows around them, at the same shrink.

    Args:
        tiles: Of one level.
        hints: Boxes in pixels of the image, of the middles of words.
        plan: Of the image.
    """
    if not hints:
        return []
    boxes = np.array(hints, np.float64)
    margin = _MARGIN * np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    clear = np.array([_shows(tile, boxes, margin, plan.width, plan.height) for tile in tiles])
    meets = np.array([_meets(tile, boxes) for tile in tiles])
    nowhere = ~clear.any(axis=0)  # longer than the overlap: every piece of it is needed
    needed = np.asarray((meets & nowhere).any(axis=1))
    left = ~nowhere & ~(clear & needed[:, None]).any(axis=0)
    windows = [tile for tile, wanted in zip(tiles, needed.tolist(), strict=True) if wanted]
    while left.any():
        best = int((clear & left).sum(axis=1).argmax())
        own = clear[best] & left
        left &= ~own
        windows += _small_windows(tiles[best], boxes[own], margin[own], plan) or (tiles[best],)
    return windows


def _small_windows(
    tile: TileWindow, boxes: NDArray[np.float64], margin: NDArray[np.float64], plan: LevelPlan
) -> tuple[TileWindow, ...]:
    """Few windows around boxes instead of a tile; none where they would cost as much."""
    if plan.small is None or len(boxes) > MOST_HINTS:
        return ()
    width = min(round(plan.small[0] * tile.shrink), plan.width)
    height = min(round(plan.small[1] * tile.shrink), plan.height)
    groups: list[NDArray[np.float64]] = []
    grown = boxes + np.stack([-margin, -margin, margin, margin], axis=1)
    for box in grown[np.lexsort((grown[:, 0], grown[:, 1]))]:
        for group in groups:
            low, high = np.minimum(group[:2], box[:2]), np.maximum(group[2:], box[2:])
            if (high - low <= (width, height)).all():
                group[:2], group[2:] = low, high
                break
        else:
            if (box[2:] - box[:2] > (width, height)).any() or len(groups) == MOST_SMALL:
                return ()
            groups.append(box.copy())
    windows = []
    for group in groups:
        x, y = (group[:2] + group[2:]) / 2 - (width / 2, height / 2)
        left = min(max(0, round(float(x))), plan.width - width)
        top = min(max(0, round(float(y))), plan.height - height)
        windows.append(TileWindow(left, top, width, height, tile.shrink))
    return tuple(windows)


def _shows(
    tile: TileWindow,
    boxes: NDArray[np.float64],
    margin: NDArray[np.float64],
    width: int,
    height: int,
) -> NDArray[np.bool_]:
    """Of which boxes a tile shows the surroundings as well, so far as they are in the image."""
    right, bottom = tile.x + tile.width, tile.y + tile.height
    return (
        ((boxes[:, 0] - margin >= tile.x) | (tile.x == 0))
        & ((boxes[:, 1] - margin >= tile.y) | (tile.y == 0))
        & ((boxes[:, 2] + margin <= right) | (right >= width))
        & ((boxes[:, 3] + margin <= bottom) | (bottom >= height))
        & _meets(tile, boxes)
    )


def _meets(tile: TileWindow, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (
        (boxes[:, 0] < tile.x + tile.width)
        & (boxes[:, 2] > tile.x)
        & (boxes[:, 1] < tile.y + tile.height)
        & (boxes[:, 3] > tile.y)
    )


def has_contrast(pixels: NDArray[np.uint8], shrink: float) -> bool:
    """Whether a window holds anything that could be a letter.

    Args:
        pixels: H x W x 3 of the window.
        shrink: How much it is shrunk for the detector, in these pixels; noise of single pixels
            goes with them.
    """
    rows, columns = pixels.shape[:2]
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    if shrink > 1:
        size = max(1, round(columns / shrink)), max(1, round(rows / shrink))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    kernel = np.ones((_FLAT_BLOCK, _FLAT_BLOCK), np.uint8)
    contrast = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, kernel)
    return bool(contrast.max() >= FLAT_LEVELS)
