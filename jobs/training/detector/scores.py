"""What a detector in training finds in photographs, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from jobs.training.data.datasets import ByteArray, FloatArray, Photo, PhotoWord
from jobs.training.detector.crops import fitted_size, input_shape
from jobs.training.detector.rotated_nms import rotated_nms
from jobs.training.detector.selection import (
    FIRST_KEPT,
    FIRST_NMS_IOU,
    LAST_NMS_IOU,
    MAX_WORDS,
    candidates,
    corners,
    vote,
)


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of one image: quads [K, 4, 2] in pixels of the image, scores [K]."""

    quads: FloatArray
    scores: FloatArray


def detect(
    trunk: nn.Module,
    image: ByteArray,
    score: float = 0.3,
    device: str = "cpu",
) -> Found:
    """Run the detector on one image, fitted into the input shape that shows it largest.

    Args:
        trunk: In eval mode.
        image: [H, W, 3] BGR.
        score: Candidates at or below this are dropped.
        device: Where the trunk lives.
    """
    height, width = image.shape[:2]
    (to_width, to_height), scale = input_shape(width, height)
    fitted = fitted_size(width, height)
    canvas = np.zeros((to_height, to_width, 3), np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[: fitted[1], : fitted[0]] = cv2.resize(image, fitted, interpolation=how)
    tensor = torch.from_numpy(canvas).permute(2, 0, 1)[None].float().to(device)
    to_map = np.array(fitted, np.float32) / (width, height)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        maps = trunk(tensor)
    return select(maps.float().cpu(), score, to_map.astype(np.float32))


def select(maps: Tensor, score: float, scale: FloatArray) -> Found:
    """Turn raw maps [1, 8, h, w] into words: candidates, NMS, vote, NMS."""
    with torch.inference_mode():
        found = candidates(maps)
        found = found[found[:, 5] > score]
        kept = rotated_nms(
            found[:, :5].numpy(), found[:, 5].numpy(), FIRST_NMS_IOU, score, FIRST_KEPT
        )
        words = vote(found[torch.from_numpy(kept)], found)
        kept = rotated_nms(
            words[:, :5].numpy(), words[:, 5].numpy(), LAST_NMS_IOU, score, MAX_WORDS
        )
        words = words[torch.from_numpy(kept)]
        return Found(corners(words).numpy() / scale, words[:, 5].numpy())


def quad_iou(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of two convex quads."""
    inter, _ = cv2.intersectConvexConvex(cv2.convexHull(a), cv2.convexHull(b))
    union = cv2.contourArea(cv2.convexHull(a)) + cv2.contourArea(cv2.convexHull(b)) - inter
    return float(inter) / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Detection figures at one threshold."""

    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def score_detections(
    found: Sequence[Found], truth: Sequence[Sequence[PhotoWord]], thresholds: Sequence[float]
) -> list[Scores]:
    """Score detections as ICDAR2015 localisation does: IoU > 0.5, greedy one-to-one.

    Detections of which more than half lies in an illegible region count neither way.
    """
    results = []
    for threshold in thresholds:
        matched = wanted = counted = 0
        for image_found, words in zip(found, truth, strict=True):
            above = image_found.quads[image_found.scores > threshold]
            care = [w for w in words if w.legible]
            ignored = [w for w in words if not w.legible]
            quads = [q for q in above if not _mostly_inside(q, ignored)]
            free = set(range(len(quads)))
            for word in care:
                hit = next((i for i in sorted(free) if quad_iou(word.quad, quads[i]) > 0.5), None)
                if hit is not None:
                    free.discard(hit)
                    matched += 1
            wanted += len(care)
            counted += len(quads)
        results.append(
            Scores(threshold, matched / counted if counted else 0.0, matched / max(wanted, 1))
        )
    return results


def _mostly_inside(quad: FloatArray, regions: Sequence[PhotoWord]) -> bool:
    hull = cv2.convexHull(quad)
    area = max(cv2.contourArea(hull), 1e-6)
    return any(
        cv2.intersectConvexConvex(hull, cv2.convexHull(r.quad))[0] / area > 0.5 for r in regions
    )


def validate(trunk: nn.Module, photos: Sequence[Photo], device: str = "cpu") -> Scores:
    """Detection figures on photos at the threshold with the best F1."""
    found = [detect(trunk, p.pixels(), 0.3, device=device) for p in photos]
    thresholds = [round(0.3 + 0.04 * i, 2) for i in range(17)]
    return max(score_detections(found, [p.words for p in photos], thresholds), key=lambda s: s.f1)
