"""Finer passes where a coarser one hints at text, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.bundles import encode_image
from textspot_ray.commands.retry_failed import as_meant
from textspot_ray.config import ImageConfig, RunConfig
from textspot_ray.images.decode import Decoded
from textspot_ray.records import Detection
from textspot_ray.spotting.coarse_to_fine import (
    LEAST_CELLS,
    MAX_STEP,
    MOST_HINTS,
    LevelPlan,
    covering,
    has_contrast,
    hints_of,
    plan_levels,
)
from textspot_ray.spotting.composite.detector import RawRows
from textspot_ray.spotting.composite.family import WordRegions
from textspot_ray.spotting.geometry import Box
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import PageDetector
from textspot_ray.spotting.tiling import TileWindow, plan_passes

INPUT, SMALL = (1280, 768), (640, 384)


def detection(box: Box) -> Detection:
    x0, y0, x1, y1 = box
    return Detection(0.9, box, (x0, y0, x1, y0, x1, y1, x0, y1), 0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(100, 30_000), st.integers(100, 30_000))
def test_levels_go_down_in_small_steps_to_the_finest_tiles(width: int, height: int) -> None:
    plan = plan_levels(width, height, INPUT, 2.0, 0.2)
    shrinks = [level[0].shrink for level in plan.levels]
    assert plan.levels[0] == (TileWindow(0, 0, width, height, shrinks[0]),)
    assert all(a / b <= MAX_STEP + 1e-6 for a, b in pairwise(shrinks))
    usual = plan_passes(width, height, *INPUT, 2.0, 0.2)
    if len(usual) == 1:
        assert len(plan.levels) == 1
    else:
        finest = {w for w in usual if w.shrink == 2.0}
        assert {(w.x, w.y) for w in plan.levels[-1]} == {(w.x, w.y) for w in finest}
        assert shrinks[-1] == pytest.approx(2.0)


def test_hints_are_in_pixels_of_the_image_and_weak_ones_count() -> None:
    evidence = np.zeros((240, 400), np.float32)
    evidence[100:102, 200:210] = 0.25
    evidence[5, 5] = 0.9  # a single cell is noise
    assert LEAST_CELLS > 1
    window = TileWindow(1000, 500, 4000, 2400, 3.1)
    assert hints_of(evidence, window, ()) == [(3000.0, 1500.0, 3100.0, 1520.0)]
    assert hints_of(None, window, ()) == []


def test_words_seen_well_hint_at_nothing_but_low_ones_inside_them_do() -> None:
    window = TileWindow(0, 0, 4000, 2400, 3.125)
    evidence = np.zeros((240, 400), np.float32)
    evidence[105:115, 110:150] = 0.9
    large, low = detection((1050, 1000, 1550, 1200)), detection((1050, 1000, 1550, 1040))
    assert hints_of(evidence, window, [large]) == []
    assert len(hints_of(evidence, window, [low])) == 1, "too low to be read well"
    evidence[105:115, 110:150] = 0
    evidence[108:110, 112:120] = 0.9  # a line of small print on a sign taken for one word
    assert len(hints_of(evidence, window, [large])) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3990), st.integers(0, 2990), st.integers(4, 900), st.integers(4, 80)
        ),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
def test_every_hint_is_shown(places: list[tuple[int, int, int, int]], has_small: bool) -> None:
    plan = plan_levels(4000, 3000, INPUT, 1.8, 0.2, SMALL if has_small else None)
    hints = [
        (float(x), float(y), float(min(x + w, 4000)), float(min(y + h, 3000)))
        for x, y, w, h in places
    ]
    windows = covering(plan.levels[-1], hints, plan)
    assert len({(w.x, w.y, w.width, w.height) for w in windows}) == len(windows)
    for x0, y0, x1, y1 in hints:
        assert any(
            w.x <= x0 and w.y <= y0 and x1 <= w.x + w.width and y1 <= w.y + w.height
            for w in windows
        ) or any(t.x < x1 and x0 < t.x + t.width for t in windows if t in plan.levels[-1])
    for window in windows:
        assert window.x >= 0 and window.x + window.width <= 4000
        assert window.y >= 0 and window.y + window.height <= 3000
        assert window in plan.levels[-1] or (window.width, window.height) == (1152, 691)


def test_one_hint_is_one_small_window_and_a_page_of_them_whole_tiles() -> None:
    plan = plan_levels(4000, 3000, INPUT, 1.8, 0.2, SMALL)
    (only,) = covering(plan.levels[-1], [(2000, 1500, 2060, 1512)], plan)
    assert (only.width, only.height, only.shrink) == (1152, 691, 1.8)
    assert only.x + only.width / 2 == pytest.approx(2030, abs=1)
    many = [(100.0 + 60 * i, 100.0, 140.0 + 60 * i, 112.0) for i in range(MOST_HINTS + 1)]
    assert covering(plan.levels[-1], many, plan) == [plan.levels[-1][0]]
    whole = LevelPlan(4000, 3000, plan.levels)
    assert covering(whole.levels[-1], [(2000, 1500, 2060, 1512)], whole)[0] in whole.levels[-1]
    assert covering(plan.levels[-1], [], plan) == []


def test_a_hint_longer_than_the_overlap_gets_every_tile_it_meets() -> None:
    plan = plan_levels(8000, 1000, INPUT, 2.0, 0.2, SMALL)
    level = plan.levels[-1]
    assert covering(level, [(10, 400, 7900, 420)], plan) == list(level)


def test_blank_tiles_have_no_contrast_and_faint_letters_have() -> None:
    rng = np.random.default_rng(1)
    page = np.full((800, 1200, 3), 200, np.uint8)
    assert not has_contrast(page, 2.0)
    noisy = np.clip(200 + rng.normal(0, 3, page.shape), 0, 255).astype(np.uint8)
    assert not has_contrast(noisy, 2.0)
    slope = np.broadcast_to(np.linspace(0, 255, 1200).astype(np.uint8)[None, :, None], page.shape)
    assert not has_contrast(np.ascontiguousarray(slope), 2.0)
    cv2.putText(noisy, "faint", (600, 400), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (160, 160, 160), 3)
    assert has_contrast(noisy, 2.0)


class Mapped:
    """Stands for a one-stage detector: sees bright words of 8 input px, hints at those of 2."""

    input_size = INPUT
    zoom_below = 0.0
    shrink_above = 0.0
    has_score_map = True

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def tile_over(self, width: int, height: int, over: float) -> float:
        return over

    def input_size_for(self, width: int, height: int) -> tuple[int, int]:
        return INPUT

    def small_size_for(self, width: int, height: int) -> tuple[int, int]:
        return SMALL

    def detect(
        self,
        window: NDArray[np.uint8],
        *,
        stretch: bool = True,
        hold: tuple[float, float] | None = None,
        fill: bool = True,
    ) -> RawRows:
        rows, columns = window.shape[:2]
        width, height = INPUT
        if hold is not None and hold[0] <= SMALL[0] + 1 and hold[1] <= SMALL[1] + 1:
            width, height = SMALL
        scale = min(width / columns, height / rows)
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        small = cv2.resize(window[:, :, 0], size, interpolation=cv2.INTER_AREA)
        self.sizes.append((width, height))
        _, _, found, _ = cv2.connectedComponentsWithStats((small > 100).astype(np.uint8))
        kept = [f[:4].astype(np.float64) for f in found[1:] if min(f[2], f[3]) >= 8]
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in kept]).reshape(-1, 4) / scale
        evidence = (small > 40).astype(np.float32) * 0.3
        return RawRows(
            boxes,
            np.full(len(kept), 0.9),
            np.ones((len(kept), 28, 28), np.float32),
            np.zeros((len(kept), 64, 28, 28), np.float32),
            False,
            evidence if hold is not None else None,
        )


def pages_of(stub: Callable[..., Path], image: ImageConfig) -> tuple[PageDetector, Mapped]:
    pages, mapped = PageDetector(SpotterSettings(model=str(stub()), image=image)), Mapped()
    pages._regions = WordRegions(mapped)  # type: ignore[arg-type]
    return pages, mapped


def test_a_photo_without_text_costs_one_pass_and_small_words_are_found_as_by_all(
    stub: Callable[..., Path],
) -> None:
    photo = np.zeros((3000, 4000, 3), np.uint8)
    auto, mapped = pages_of(stub, ImageConfig())
    everything, _ = pages_of(stub, ImageConfig(tiles="all"))
    detected, _ = auto.detect(encode_image(photo, ".jpg"))
    assert detected.info is not None and detected.info.tiles == len(mapped.sizes) == 1
    words = [(300, 200, 460, 222), (3500, 2500, 3640, 2524), (1200, 1400, 2600, 1700)]
    for x0, y0, x1, y1 in words:
        photo[y0:y1, x0:x1] = 255
    mapped.sizes.clear()
    data = encode_image(photo, ".jpg")
    detected, features = auto.detect(data)
    wanted, _ = everything.detect(data)
    assert mapped.sizes == [INPUT, SMALL, SMALL], "the large word is seen well in the first pass"
    assert len(features) == len(detected.detections) == 3
    for one, other in zip(detected.detections, wanted.detections, strict=True):
        assert one.box == pytest.approx(other.box, abs=4)


def test_a_jpeg_is_decoded_larger_only_for_tiles(
    stub: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Decoded] = []
    from textspot_ray.spotting import spotter

    decode = spotter.decode

    def noted(*args: object, **given: object) -> object:
        decoded.append(decode(*args, **given))  # type: ignore[arg-type]
        return decoded[-1]

    monkeypatch.setattr(spotter, "decode", noted)
    photo = np.zeros((3000, 4000, 3), np.uint8)
    auto, _ = pages_of(stub, ImageConfig())
    auto.detect(encode_image(photo, ".jpg"))
    assert [d.image.shape[:2] for d in decoded] == [(750, 1000)]
    photo[200:222, 300:460] = 255
    decoded.clear()
    auto.detect(encode_image(photo, ".jpg"))
    assert [d.image.shape[:2] for d in decoded] == [(750, 1000), (1500, 2000)]
    decoded.clear()
    auto.detect(encode_image(photo, ".png"))
    assert len(decoded) == 1, "what is large already is not decoded twice"


def test_auto_and_all_are_two_settings_and_all_is_what_auto_was(
    stub: Callable[..., Path],
) -> None:
    model = str(stub())
    prints = {
        tiles: result_fingerprint(
            resolve(SpotterSettings(model, image=ImageConfig(tiles=tiles)), verify=False)
        )["tiles"]
        for tiles in ("auto", "all", "off")
    }
    assert len(set(prints.values())) == 3
    assert prints["all"] == "over 2, overlap 0.2, cut by saturation, depth 3, 84 parts"
    stored = RunConfig()
    assert as_meant(stored, {"tiles": prints["all"]}).image.tiles == "all"
    assert as_meant(stored, {"tiles": prints["auto"]}) == stored
    off = RunConfig(image=ImageConfig(tiles="off"))
    assert as_meant(off, {"tiles": "off"}) == off
    assert math.isfinite(stored.image.tile_over)
