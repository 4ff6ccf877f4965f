"""Boxes that may be several words: their parts travel with them, and reading decides.

A detector may say of a box that it looks like several words, and give these as further boxes. What
looks like a gap may also be the space between the letters of one wide word, so both are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Detection, Reading
from textspot_ray.spotting.tiling import Seen

_SAME_IOU = 0.5  # of a part with another box: it is that word
# How much more surely parts must be read. On the validation photos word spotting was 67.0 without
# parts, 67.1 with 0, 67.6 with 0.1, 67.8 with 0.2; on pages the same within 0.1.
_SURER = 0.2


def wholes_and_parts(
    detections: Sequence[Detection], is_part: Sequence[bool]
) -> list[tuple[int, Detection]]:
    """Boxes, then the parts of them, each with its number among those given.

    Args:
        detections: Of one window.
        is_part: Whether each is a part of a box with the same confidence.

    Returns:
        `Detection.part_of` is set. Parts whose box is not among them are left out.
    """
    wholes = [i for i, part in enumerate(is_part) if not part]
    placed = [(i, detections[i]) for i in wholes]
    for i, part in enumerate(is_part):
        if not part:
            continue
        shared = {
            number: _shared(_quad(detections[i]), _quad(detections[whole]))
            for number, whole in enumerate(wholes)
            if detections[whole].confidence == detections[i].confidence
        }
        best = max(shared, key=lambda number: shared[number], default=None)
        if best is not None and shared[best] > 0:
            placed.append((i, replace(detections[i], part_of=best)))
    return placed


def with_parts(kept: Sequence[Seen], seen: Sequence[Seen]) -> list[Seen]:
    """Boxes that were kept, and after them their parts, numbered anew.

    Args:
        kept: Without parts.
        seen: All, parts included; `Detection.part_of` is a row.
    """
    numbers = {s.row: number for number, s in enumerate(kept)}
    parts = [
        replace(s, detection=replace(s.detection, part_of=numbers[s.detection.part_of]))
        for s in seen
        if s.detection.part_of is not None and s.detection.part_of in numbers
    ]
    return [*kept, *parts]


def chosen(detections: Sequence[Detection], readings: Sequence[Reading]) -> list[bool]:
    """Which boxes become words: a box, or its parts where each is read clearly more surely.

    Parts without text do not count. A part that is another box as well is left to that one.
    """
    keep = [detection.part_of is None for detection in detections]
    parts: dict[int, list[int]] = {}
    for number, detection in enumerate(detections):
        if detection.part_of is not None and readings[number].text:
            parts.setdefault(detection.part_of, []).append(number)
    replaced = {
        whole: numbers
        for whole, numbers in parts.items()
        if min(readings[n].confidence for n in numbers) > readings[whole].confidence + _SURER
    }
    if not replaced:
        return keep
    for whole in replaced:
        keep[whole] = False
    others = [_quad(d) for d, kept in zip(detections, keep, strict=True) if kept]
    for numbers in replaced.values():
        for number in numbers:
            quad = _quad(detections[number])
            keep[number] = not any(_iou(quad, other) > _SAME_IOU for other in others)
    return keep


def _quad(detection: Detection) -> NDArray[np.float32]:
    return np.array(detection.polygon, np.float32).reshape(4, 2)


def _shared(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Area of the intersection of two convex quads."""
    if (a.max(0) <= b.min(0)).any() or (b.max(0) <= a.min(0)).any():
        return 0.0
    return float(cv2.intersectConvexConvex(a, b)[0])


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    shared = _shared(a, b)
    return shared / max(float(cv2.contourArea(a) + cv2.contourArea(b)) - shared, 1e-9)
