"""A real bundle whose recogniser dies of certain words: what broken weights or a fault in
native code would do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.scripted import act
from textspot_ray.engine.components import Components
from textspot_ray.records import Readings

DEADLY = {"crash": "crash", "raise": "raise"}  # word: what it does
ONCE = "once"  # a word that kills a single time


@dataclass(frozen=True)
class PoisonedModels:
    """The recipe of a bundle; ``flag`` is a file that does not exist yet."""

    models: Any
    flag: str

    def detector(self) -> Any:
        return self.models.detector()

    def recognizer(self) -> PoisonedRecognizer:
        return PoisonedRecognizer(self.models.recognizer(), self.flag)

    def sized(self, threads: Any) -> PoisonedModels:
        return replace(self, models=self.models.sized(threads))


class PoisonedRecognizer:
    def __init__(self, recognizer: Any, flag: str) -> None:
        self._recognizer = recognizer
        self._flag = flag

    def blank(self) -> Any:
        return self._recognizer.blank()

    def read(self, features: Any) -> Readings:
        readings = self._recognizer.read(features)
        for reading in readings.readings:
            for word in reading.text.split():
                if word in DEADLY:
                    act(DEADLY[word])
                if word == ONCE:
                    act(f"kill_once:{self._flag}")
        return readings


def poisoned(parts: Components, flag: Path) -> Components:
    """The parts with such a recogniser."""
    models = PoisonedModels(parts.recipe.models, str(flag))
    return replace(parts, recipe=replace(parts.recipe, models=models))
