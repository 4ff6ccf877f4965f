# mypy: disable-error-code="misc,untyped-decorator"
r"""Train the splitter of rectangles around several words; the same command resumes.

    python -m jobs.training splitter --work DIR --icdar2015 DIR [--mlt DIR] [--data DIR] \
        [--scenes SHARE] --detector textspot_ray/models/embedded/detector-int8.xml

It learns from rectangles that the detector finds in crops, from true ones moved as the detector's
are off, and from such around neighbouring words.
Writes ``splitter.npz`` into ``--work``, beside what `jobs.training.loop.patch_training` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jobs.training.data import datasets
from jobs.training.data.datasets import ByteArray, FloatArray, PhotoWord
from jobs.training.detector.batches import SceneSource, Source
from jobs.training.detector.crops import CropRules, recolour
from jobs.training.detector.network import ENLARGEMENT
from jobs.training.detector.sources import sources_of
from jobs.training.loop import patch_training
from jobs.training.loop.feed import feed
from jobs.training.reader.cutting import cut
from jobs.training.refiner.found import FoundRectangles
from jobs.training.refiner.train import mixture, moved_rect, usable
from jobs.training.splitter.network import (
    SPLITTER_PATCH,
    Splitter,
    gap_loss,
    load_splitter,
    maps_along,
    save_splitter,
    split,
)
from jobs.training.splitter.spans import column_targets, joined, spans_in
from textspot_ray.errors import UsageError

FOUND_A_CROP = 10  # rectangles of the detector
JOINED_A_CROP = 4
MOVED_A_CROP = 3
POOL_BATCHES = 6  # that are held to draw a batch from
HELD_OUT = 2000  # samples of validation photos
SHIFTS = (0.0, 1.0, 2.0)  # taken off the logits: fewer rectangles are parted


@dataclass(frozen=True, slots=True)
class Sample:
    """One example.

    Attributes:
        pixels: [32, 192, 3] BGR.
        wanted: [48], 1 outside words.
        weight: [48], 0 where it is not known.
        along: [12, 48] what the detector's maps say, see `maps_along`.
        aspect: Width over height of the rectangle.
    """

    pixels: ByteArray
    wanted: FloatArray
    weight: FloatArray
    along: FloatArray
    aspect: float


def samples_of(
    image: ByteArray,
    maps: FloatArray,
    rects: Sequence[FloatArray],
    words: Sequence[PhotoWord],
) -> list[Sample]:
    """Patches of the rectangles of a picture; those that hold no word are left out.

    Args:
        image: [H, W, 3] BGR.
        maps: [1, 7, H / 4, W / 4] of the detector.
        rects: [4, 2] each.
        words: All of the picture.
    """
    targets = [column_targets(rect, spans_in(rect, words)) for rect in rects]
    taken = [i for i, (wanted, weight) in enumerate(targets) if (weight * (1 - wanted)).any()]
    if not taken:
        return []
    quads = torch.from_numpy(np.stack([rects[i] for i in taken])).float()
    along = maps_along(torch.from_numpy(maps), quads).numpy()
    made = []
    for row, i in enumerate(taken):
        rect = rects[i]
        pixels, _ = cut(image, rect, shape=SPLITTER_PATCH, enlargement=ENLARGEMENT)
        aspect = np.hypot(*(rect[1] - rect[0])) / np.hypot(*(rect[3] - rect[0]))
        made.append(Sample(pixels, *targets[i], along[row], float(aspect)))
    return made


class Samples:
    """Endless batches of rectangles from crops of photos and scenes.

    Args:
        sources: What to crop.
        size_px: Side of the crops.
        batch: Samples a batch.
        seed: Of all chance.
        detector: Whose rectangles and maps to learn from.
    """

    def __init__(
        self,
        sources: Sequence[Source | SceneSource],
        size_px: int,
        batch: int,
        seed: int,
        detector: Path,
    ) -> None:
        self.sources = list(sources)
        self.size_px = size_px
        self.batch = batch
        self.rng = np.random.default_rng(seed)
        self.found = FoundRectangles(detector, size_px)

    def draw(self) -> Iterator[Sample]:
        """One after the other."""
        shares = np.array([s.share for s in self.sources])
        while True:
            source = self.sources[int(self.rng.choice(len(shares), p=shares / shares.sum()))]
            image, words = source.draw(self.rng)
            good = [w for w in words if usable(w, self.size_px)]
            if not good:
                continue
            image = recolour(self.rng, image)
            found, maps = self.found.rects_and_maps(image)
            rects = self._some(found, FOUND_A_CROP)
            rects += [moved_rect(self.rng, w.quad) for w in self._some(good, MOVED_A_CROP)]
            around = self._some(joined(self.rng, words), JOINED_A_CROP)
            rects += [moved_rect(self.rng, quad) for quad in around]
            yield from samples_of(image, maps, rects, words)

    def _some(self, items: Sequence[Any], count: int) -> list[Any]:
        return [items[int(i)] for i in self.rng.permutation(len(items))[:count]]

    def __iter__(self) -> Iterator[list[Sample]]:
        """Mix samples of several crops: neighbours in a crop are alike."""
        samples = self.draw()
        pool = [next(samples) for _ in range(POOL_BATCHES * self.batch)]
        while True:
            drawn = self.rng.choice(len(pool), self.batch, replace=False)
            yield [pool[int(i)] for i in drawn]
            for i in drawn:
                pool[int(i)] = next(samples)


def tensors(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels [K, 3, 32, 192], maps [K, 12, 48], targets [K, 48] and weights [K, 48]."""
    pixels = torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float()
    wanted = torch.from_numpy(np.stack([s.wanted for s in samples]))
    along = torch.from_numpy(np.stack([s.along for s in samples]))
    return pixels, along, wanted, torch.from_numpy(np.stack([s.weight for s in samples]))


def validation_samples(folder: Path, size_px: int, detector: Path) -> list[Sample]:
    """Rectangles in crops of the validation photos."""
    rules = CropRules(size_px=size_px, scale_range=(0.9, 1.1), by_word=0.0, tilt_deg=0.0)
    source = Source(datasets.icdar2015_validation(folder), 1.0, rules)
    samples = Samples([source], size_px, 1, 0, detector).draw()
    return [next(samples) for _ in range(HELD_OUT)]


@torch.no_grad()
def validate(splitter: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
    """Share of rectangles around several words that are parted, and of those around one."""
    pixels, along, wanted, weight = tensors(samples)
    device = next(splitter.parameters()).device
    parts = zip(pixels.split(128), along.split(128), strict=True)
    logits = torch.cat([splitter(p.to(device), a.to(device)).cpu() for p, a in parts])
    joins = (wanted * weight).amax(1) > 1
    figures = {"loss_held_out": float(gap_loss(logits, wanted, weight))}
    rects = torch.tensor([[0.0, 0.0, s.aspect, 1.0, 0.0, 0.0] for s in samples])
    for shift in SHIFTS:
        parts = [split(rects[i : i + 1], logits[i : i + 1] - shift) for i in range(len(rects))]
        parted = torch.tensor([len(p) > 0 for p in parts])
        figures[f"parted_{shift:g}"] = float(parted[joins].float().mean())
        figures[f"false_{shift:g}"] = float(parted[~joins].float().mean())
    return figures


class SplitterTask:
    """Training of the splitter; see `jobs.training.loop.patch_training.Task`."""

    name = "splitter"

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._held_out: list[Sample] = []
        if args.icdar2015:
            self._held_out = validation_samples(args.icdar2015, args.crop, args.detector)
        self._sources = sources_of(args, mixture(args.crop))

    def fresh(self) -> nn.Module:
        """An untrained splitter."""
        return Splitter()

    def load(self, path: Path) -> nn.Module:
        """A trained one."""
        return load_splitter(path)

    def save(self, model: nn.Module, path: Path) -> None:
        """Write its weights."""
        save_splitter(model, path)

    def batches(self, samples: int, averaged: nn.Module) -> Iterator[list[Sample]]:
        """Endless batches."""
        args = self._args

        def made(worker: int) -> Iterator[list[Sample]]:
            seed = args.seed + samples + 10**6 * worker
            return iter(Samples(self._sources, args.crop, args.batch, seed, args.detector))

        return feed(made, args.workers)

    def loss(self, model: nn.Module, batch: Sequence[Sample], device: str) -> tuple[Tensor, int]:
        """Mean loss of the columns."""
        pixels, along, wanted, weight = (t.to(device) for t in tensors(batch))
        with torch.autocast(device, torch.bfloat16):
            logits = model(pixels.to(memory_format=torch.channels_last), along)
        return gap_loss(logits.float(), wanted, weight), len(batch)

    def figures(self, model: nn.Module) -> dict[str, float]:
        """What is parted in validation photos."""
        return validate(model, self._held_out) if self._held_out else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train_splitter", description=__doc__.split("\n")[0])
    patch_training.add_options(parser)
    args = parser.parse_args(argv)
    if args.detector is None:
        raise UsageError("give --detector, the IR of a detector whose rectangles are to be parted")
    patch_training.train(args, SplitterTask(args))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
