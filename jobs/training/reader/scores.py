# mypy: disable-error-code="misc,untyped-decorator"
"""How a reader in training reads fixed sets of words, rendered and real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from jobs.training.data.word_crop import Renderer, Word
from jobs.training.reader import crops as reader_crops
from jobs.training.reader import network as net
from jobs.training.reader.batches import exact_batch
from jobs.training.reader.distortions import jitter_quad
from jobs.training.reader.losses import Reader
from textspot_ray.evaluation.rules import spotting_text


@dataclass(frozen=True, slots=True)
class Score:
    """How a set of words is read: shares right (a-z0-9, case ignored)."""

    attention: float
    ctc: float
    care: float
    """Attention, words that word spotting counts (>= 3 letters, no digits)."""
    n_care: int


@torch.no_grad()
def measure(
    reader: Reader, words: Sequence[Word], device: torch.device, bf16: bool = False
) -> Score:
    """Read words along their true quads."""
    reader.eval()
    right = right_ctc = right_care = n_care = 0
    for start in range(0, len(words), 64):
        part = words[start : start + 64]
        batch = exact_batch(part)
        columns, ctc = reader.encode(
            torch.from_numpy(batch.pixels).to(device),
            torch.from_numpy(batch.codes).to(device),
            bf16,
        )
        read = [text for text, _ in reader.decoder.greedy(columns)]
        for word, text, by_ctc, target in zip(
            part, read, net.read_ctc(ctc), batch.texts, strict=True
        ):
            right += text == target
            right_ctc += by_ctc == target
            if spotting_text(word.text) is not None:
                n_care += 1
                right_care += text == target
    n = max(1, len(words))
    return Score(right / n, right_ctc / n, right_care / max(1, n_care), n_care)


def rendered_sets(renderer: Renderer, n: int = 100) -> dict[str, list[Word]]:
    """Three fixed sets of rendered words for measuring."""
    return {
        name: [renderer(np.random.default_rng([seed, i]), level) for i in range(n)]
        for seed, (name, level) in enumerate((("easy", 0.05), ("mid", 0.5), ("hard", 0.9)), 9000)
    }


def real_sets(folder: Path) -> dict[str, list[Word]]:
    """Real words of photos 801-900: full-resolution crops, as seen in the photos, and as seen
    there along quads that are off."""
    first, last = reader_crops.LAST_TRAIN_PHOTO + 1, reader_crops.LAST_VALIDATION_PHOTO
    photos = reader_crops.photo_crops(folder / "icdar2015_train", first, last)
    rng = np.random.default_rng(0)
    return {
        "crops": list(reader_crops.word_crops(folder / "icdar2015_words", first, last)),
        "photos": list(photos),
        "jittered": [replace(c, quad=jitter_quad(rng, c.quad, 0.8)) for c in photos],
        "empty": list(reader_crops.empty_crops(folder / "icdar2015_train", first, last)),
    }
