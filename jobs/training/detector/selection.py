# mypy: disable-error-code="misc"
"""From the detector's raw maps to words: candidates, suppression, vote.

Rotated NMS thins the candidates; then all candidates that agree with a survivor vote on its sides,
each voter mostly on the sides near to it; that gives long words exact ends.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.training.detector.network import DISTANCE_UNIT_PX, STRIDE_PX

MAX_CANDIDATES = 3000
FIRST_KEPT = 600  # survivors of the first suppression, before the vote
MAX_WORDS = 300  # rows that leave the graph
CELL = 2  # candidates are the best of each CELL x CELL pixels
# Of words this high (px) only the best of each 2 x 2 cells is a candidate, of words twice as high
# of each 4 x 4: the cells of a word grow with the square of its height, and a few huge words would
# fill the list, so that others are lost.
THIN_FROM_PX = (80.0, 160.0)
THINNED = 1e4  # taken off the logit of a cell left out: it comes last
MIN_VOTE_IOU = 0.3
MIN_VOTE_SCORE = 0.3
# Before and after the vote. Words of photos hardly overlap: on the validation photos 0.15 and 0.1
# found 1.5 points of F1 more than 0.3 and 0.3; this pair beside it was not measured.
FIRST_NMS_IOU = 0.2
LAST_NMS_IOU = 0.1
# After the refiner. On validation 0.5 took 4 of 123 wrong words from receipts and no right one;
# 0.3 took two right ones with two more wrong.
REFINED_NMS_IOU = 0.5


def candidates(maps: Tensor) -> Tensor:
    """Pick and decode the best pixels of one image.

    Args:
        maps: [1, 8, h, w] raw; h and w even.

    Returns:
        [N, 8], best first: cx, cy, width, height, angle (radians, clockwise on screen), score,
        and the pixel's own x, y.
    """
    h, w = maps.shape[2], maps.shape[3]
    maps = maps.float()
    flat = maps[0].flatten(1)
    # scores of a cell's pixels next to each other; of the other maps only what is chosen is moved
    best = F.pixel_unshuffle(maps[:, :1], CELL).reshape(CELL * CELL, -1).argmax(0)
    cells = torch.arange(best.shape[0], device=maps.device)  # not len: a trace would fix it
    columns = w // CELL
    rows = cells // columns * CELL + best // CELL
    pixels = rows * w + cells % columns * CELL + best % CELL
    chosen = flat[:4].index_select(1, pixels)
    rank = chosen[0] - THINNED * _thinned(chosen, h // CELL, columns)
    # every input shape has more cells than that; only a trial's small maps have fewer
    count = MAX_CANDIDATES if torch.jit.is_tracing() else min(MAX_CANDIDATES, len(rank))
    top = pixels.index_select(0, rank.topk(count).indices)
    picked = flat.index_select(1, top)
    x = (top % w + 0.5) * STRIDE_PX
    y = (top // w + 0.5) * STRIDE_PX
    sides = torch.exp(picked[1:5].clamp(-4.0, 4.0)) * DISTANCE_UNIT_PX
    angle = torch.atan2(picked[6], picked[5])
    cos, sin = torch.cos(angle), torch.sin(angle)
    du, dv = (sides[1] - sides[3]) / 2, (sides[2] - sides[0]) / 2
    cx = x + du * cos - dv * sin
    cy = y + du * sin + dv * cos
    return torch.stack(
        [
            cx, cy, sides[1] + sides[3], sides[0] + sides[2], angle,
            torch.sigmoid(picked[0]), x, y,
        ],
        1,
    )  # fmt: skip


def _thinned(cells: Tensor, rows: int, columns: int) -> Tensor:
    """1 where a cell of [4, rows * columns] is left out for its word's height, else 0."""
    height = torch.exp(cells[1:4:2].clamp(-4.0, 4.0)).sum(0) * DISTANCE_UNIT_PX
    score = cells[0].reshape(1, 1, rows, columns)
    out = torch.zeros_like(height)
    for power, least in enumerate(THIN_FROM_PX, 1):
        best = F.max_pool2d(score, 2**power)
        best = F.interpolate(best, scale_factor=float(2**power), mode="nearest")
        worse = (score < best).reshape(-1).to(height.dtype)
        out = torch.maximum(out, (height > least).to(height.dtype) * worse)
    return out


def vote(kept: Tensor, voters: Tensor) -> Tensor:
    """Refine kept words [K, 8] by all candidates [N, 8] that agree with them.

    A voter agrees if its box, seen in the kept word's frame, overlaps by an IoU of `MIN_VOTE_IOU`,
    runs the same way and scores above `MIN_VOTE_SCORE`. Sides are weighted means; a voter counts
    for the left and right side the more, the nearer its pixel is.

    Returns:
        [K, 6]: cx, cy, width, height, angle, score (that of the kept word).
    """
    k, n = kept[:, None, :], voters[None, :, :]
    cos, sin = torch.cos(k[..., 4]), torch.sin(k[..., 4])
    dx, dy = n[..., 0] - k[..., 0], n[..., 1] - k[..., 1]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    left, right = u - n[..., 2] / 2, u + n[..., 2] / 2
    top, bottom = v - n[..., 3] / 2, v + n[..., 3] / 2
    half_w, half_h = k[..., 2] / 2, k[..., 3] / 2
    inter_w = torch.minimum(right, half_w) - torch.maximum(left, -half_w)
    inter_h = torch.minimum(bottom, half_h) - torch.maximum(top, -half_h)
    inter = inter_w.clamp(min=0) * inter_h.clamp(min=0)
    union = n[..., 2] * n[..., 3] + k[..., 2] * k[..., 3] - inter
    turn = n[..., 4] - k[..., 4]
    agrees = (inter > MIN_VOTE_IOU * union) & (torch.cos(turn) > 0.9) & (n[..., 5] > MIN_VOTE_SCORE)
    weight = agrees.to(kept.dtype) * n[..., 5] ** 2
    # the voter's pixel along the kept word: -1 left end, 1 right end
    px = (n[..., 6] - k[..., 0]) * cos + (n[..., 7] - k[..., 1]) * sin
    reach = half_h * 2 + 0.25 * half_w
    w_left = weight * torch.exp(-(px + half_w).clamp(min=0) / reach) + 1e-9
    w_right = weight * torch.exp(-(half_w - px).clamp(min=0) / reach) + 1e-9
    weight = weight + 1e-9
    left = (left * w_left).sum(1) / w_left.sum(1)
    right = (right * w_right).sum(1) / w_right.sum(1)
    top = (top * weight).sum(1) / weight.sum(1)
    bottom = (bottom * weight).sum(1) / weight.sum(1)
    mean_turn = (torch.sin(turn) * weight).sum(1) / weight.sum(1)
    angle = kept[:, 4] + mean_turn  # small angles: |turn| < 26 degrees
    cos, sin = cos[:, 0], sin[:, 0]
    mu, mv = (left + right) / 2, (top + bottom) / 2
    cx = kept[:, 0] + mu * cos - mv * sin
    cy = kept[:, 1] + mu * sin + mv * cos
    return torch.stack(
        [
            cx, cy, (right - left).clamp(min=1), (bottom - top).clamp(min=1), angle, kept[:, 5],
        ],
        1,
    )  # fmt: skip


def corners(rects: Tensor) -> Tensor:
    """Corners [K, 4, 2], clockwise from the text's top left, of rectangles [K, >=5]."""
    cos, sin = torch.cos(rects[:, 4]), torch.sin(rects[:, 4])
    u = torch.stack([cos, sin], 1) * rects[:, 2:3] / 2
    v = torch.stack([-sin, cos], 1) * rects[:, 3:4] / 2
    c = rects[:, 0:2]
    return torch.stack([c - u - v, c + u - v, c + u + v, c - u + v], 1)
