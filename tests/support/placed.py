"""Scripted models that say on which Ray node they ran: word ``w`` comes out as ``w`` with three."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tests.support.scripted import (
    FINGERPRINT,
    FileReader,
    ScriptedDetector,
    ScriptedModels,
    ScriptedRecognizer,
    assemble,
    encode_words,
    list_folder,
)
from textspot_ray.engine.components import Components
from textspot_ray.engine.slot.slot import Recipe
from textspot_ray.records import DetectedPage, Encoded, ImageResult, Readings


def node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())[:8]


@dataclass(frozen=True)
class PlacedModels(ScriptedModels):
    def detector(self) -> PlacedDetector:
        return PlacedDetector()

    def recognizer(self) -> PlacedRecognizer:
        return PlacedRecognizer()


class PlacedDetector(ScriptedDetector):
    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, np.ndarray]:
        found, features = super().detect(data, page)
        return found, encode_words([node_id()] * len(features))


class PlacedRecognizer(ScriptedRecognizer):
    def read(self, features: np.ndarray) -> Readings:
        found = super().read(features)
        here = node_id()
        # what lies in this node's object store is mapped, not copied, and so cannot be written to
        mapped = "local" if features.size and not features.flags.writeable else "copied"
        return Readings(tuple(replace(r, text=f"{r.text} {here} {mapped}") for r in found.readings))


def assemble_placed(
    encoded: Encoded, page: int, detected: DetectedPage, readings: Readings | None
) -> ImageResult:
    result = assemble(encoded, page, detected, readings)
    here = node_id()
    return replace(result, words=tuple(replace(w, text=f"{w.text} {here}") for w in result.words))


def placed_parts(folder: Path) -> Components:
    recipe = Recipe(PlacedModels(), FileReader, assemble_placed)
    return Components(recipe, FINGERPRINT, partial(list_folder, folder))
