"""A tiny reader in training and words drawn for it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from jobs.training.reader import trainer as reader_trainer
from jobs.training.reader.batches import WordSource
from jobs.training.reader.network import ReaderSize

TINY = ReaderSize(widths=(8, 8, 8, 8, 16), dilations=(1,))


@dataclass(frozen=True)
class Drawn:
    image: np.ndarray
    quad: np.ndarray
    text: str


def draw(rng: np.random.Generator, difficulty: float) -> Drawn:
    text = "".join(rng.choice(list("abc1"), int(rng.integers(1, 4))))
    image = np.full((40, 100, 3), 200, np.uint8)
    cv2.putText(image, text, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
    quad = np.array([[8, 8], [92, 8], [92, 34], [8, 34]], np.float32)
    return Drawn(image, quad, text)


def trainer(**recipe: float) -> reader_trainer.Trainer:
    settings = reader_trainer.Recipe(batch=8, warmup_steps=1, **recipe)  # type: ignore[arg-type]
    return reader_trainer.Trainer(settings, TINY, torch.device("cpu"), bf16=False)


def source(seed: int = 3) -> WordSource:
    return WordSource(draw, [], seed, batch=8, reuse=2, pool=32)
