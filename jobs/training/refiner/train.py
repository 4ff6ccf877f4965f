# mypy: disable-error-code="misc,untyped-decorator"
"""Train the refiner of word rectangles; the same command resumes.

    python -m jobs.training refiner --work DIR --icdar2015 DIR [--mlt DIR] [--scenes SHARE]

A true quad's rectangle is moved as the detector's are off, and the network learns the way back.
Writes into ``--work``: ``last.pt`` (to resume), ``refiner.npz`` (averaged weights), ``log.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from jobs.training.data import datasets
from jobs.training.data.datasets import ByteArray, FloatArray, PhotoWord
from jobs.training.detector.batches import SceneSource, Source
from jobs.training.detector.crops import CropRules, base_scale, recolour, rect_of_quad
from jobs.training.detector.scores import quad_iou
from jobs.training.detector.sources import Mixture, Share, sources_of
from jobs.training.loop import session
from jobs.training.loop.checkpoints import load_checkpoint, save_checkpoint
from jobs.training.loop.ema import Averaged
from jobs.training.loop.feed import feed
from jobs.training.loop.log import append_row
from jobs.training.reader.cutting import cut
from jobs.training.refiner.network import (
    REFINER_PATCH,
    Refiner,
    corner_loss,
    load_refiner,
    place,
    save_refiner,
)

FIGURES = ("iou_before", "iou_after", "end_before", "end_after")  # columns of the log
WORDS_A_CROP = 6
LEAST_HEIGHT_PX = 8.0
LOST_SHARE = 0.05  # of the samples have lost letters at an end: widely spaced and very large words


@dataclass(frozen=True, slots=True)
class Sample:
    """One example.

    Attributes:
        pixels: [32, 128, 3] BGR.
        rect: [4, 2] the rectangle that was cut along.
        wanted: [4, 2] the true corners in the rectangle's coordinates.
        aspect: Its width over its height.
    """

    pixels: ByteArray
    rect: FloatArray
    wanted: FloatArray
    aspect: float


def moved_rect(rng: np.random.Generator, quad: FloatArray) -> FloatArray:
    """A rectangle [4, 2] about a word, off as the detector's are.

    Measured on photos 801-900: half of the ends within 0.11 heights, a tenth further off than
    0.35, one in fifty beyond 0.7; top and bottom spread by 0.1, angles by 7 degrees.
    """
    rect = rect_of_quad(quad)
    far = rng.random(2) < 0.3
    ends = np.where(
        far,
        np.clip(rng.normal(0.05, 0.4, 2), -0.7, 1.0),
        np.clip(rng.normal(0.0, 0.15, 2), -0.35, 0.4),
    )
    ends = np.maximum(ends * rect.height, -0.3 * rect.width)
    if rng.random() < LOST_SHARE:  # the end of a wide word, gone
        ends[int(rng.integers(2))] = -rng.uniform(0.15, 0.5) * rect.width
    sides = np.clip(rng.normal(-0.02, 0.12, 2), -0.25, 0.35) * rect.height
    spread = min(7.0, float(np.degrees(np.arctan(0.35 * rect.height / max(rect.width, 1.0)))) + 0.5)
    turn = np.radians(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread))
    along = np.array([rect.cos, rect.sin])
    down = np.array([-rect.sin, rect.cos])
    left, right = -rect.width / 2 - ends[0], rect.width / 2 + ends[1]
    top, bottom = -rect.height / 2 - sides[0], rect.height / 2 + sides[1]
    middle = np.array([rect.cx, rect.cy]) + along * (left + right) / 2 + down * (top + bottom) / 2
    degrees = float(np.degrees(np.arctan2(rect.sin, rect.cos) + turn))
    size = (max(float(right - left), 3.0), max(float(bottom - top), 3.0))
    return datasets.rect_corners((float(middle[0]), float(middle[1])), size, degrees)


def sample(image: ByteArray, quad: FloatArray, rect: FloatArray) -> Sample:
    """Cut a rectangle's patch and express the true corners in its coordinates."""
    across, down = rect[1] - rect[0], rect[3] - rect[0]
    width, height = float(np.hypot(*across)), float(np.hypot(*down))
    offset = quad - rect[0]
    wanted = np.stack((offset @ across / width**2, offset @ down / height**2), 1)
    pixels, _ = cut(image, rect, shape=REFINER_PATCH)
    return Sample(pixels, rect, wanted.astype(np.float32), width / height)


def usable(word: PhotoWord, size_px: int) -> bool:
    """Whether a word of a crop is whole, readable and high enough to learn from."""
    inside = word.quad.min() >= 0 and float(word.quad.max()) <= size_px
    rect = rect_of_quad(word.quad)
    return word.legible and inside and rect.height >= LEAST_HEIGHT_PX and rect.width >= 6


class Samples:
    """Endless batches of moved rectangles from crops of photos and scenes."""

    def __init__(
        self, sources: Sequence[Source | SceneSource], size_px: int, batch: int, seed: int
    ) -> None:
        self.sources = list(sources)
        self.size_px = size_px
        self.batch = batch
        self.rng = np.random.default_rng(seed)

    def _draw(self) -> Iterator[Sample]:
        shares = np.array([s.share for s in self.sources])
        while True:
            source = self.sources[int(self.rng.choice(len(shares), p=shares / shares.sum()))]
            image, words = source.draw(self.rng)
            words = [w for w in words if usable(w, self.size_px)]
            if not words:
                continue
            image = recolour(self.rng, image)
            for i in self.rng.permutation(len(words))[:WORDS_A_CROP]:
                quad = words[int(i)].quad
                yield sample(image, quad, moved_rect(self.rng, quad))

    def __iter__(self) -> Iterator[list[Sample]]:
        samples = self._draw()
        while True:
            yield [next(samples) for _ in range(self.batch)]


def tensors(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [K, 3, 32, 128], wanted corners [K, 4, 2], aspects [K]."""
    pixels = torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float()
    wanted = torch.from_numpy(np.stack([s.wanted for s in samples]))
    return pixels, wanted, torch.tensor([s.aspect for s in samples], dtype=torch.float32)


def validation_samples(folder: Path) -> list[Sample]:
    """Moved rectangles of the validation photos' words, as the trunk sees them."""
    rng = np.random.default_rng(0)
    found = []
    for photo in datasets.icdar2015_validation(folder):
        image = photo.pixels()
        scale = base_scale(image.shape[1], image.shape[0])
        size = (round(image.shape[1] * float(scale[0])), round(image.shape[0] * float(scale[1])))
        larger = np.asarray(cv2.resize(image, size), np.uint8)
        for word in photo.words:
            quad = (word.quad * scale).astype(np.float32)
            if word.legible and rect_of_quad(quad).height >= LEAST_HEIGHT_PX:
                found.append(sample(larger, quad, moved_rect(rng, quad)))
    return found


@torch.no_grad()
def validate(refiner: nn.Module, samples: Sequence[Sample]) -> tuple[float, float, float, float]:
    """Mean IoU with the true quads, and mean distance of the ends in heights: before, after."""
    pixels, wanted, aspect = tensors(samples)
    device = next(refiner.parameters()).device
    predicted = torch.cat([refiner(part.to(device)).cpu() for part in pixels.split(128)])
    rects = torch.from_numpy(np.stack([s.rect for s in samples]))
    true, after = place(rects, wanted).numpy(), place(rects, predicted).numpy()
    before = rects.numpy()
    ious = [(quad_iou(t, b), quad_iou(t, a)) for t, b, a in zip(true, before, after, strict=True)]
    base = torch.tensor([0.0, 1.0, 1.0, 0.0])
    off = ((base - wanted[:, :, 0]) * aspect[:, None]).abs().mean()
    left = ((predicted[:, :, 0] - wanted[:, :, 0]) * aspect[:, None]).abs().mean()
    mean = np.mean(ious, axis=0)
    return float(mean[0]), float(mean[1]), float(off), float(left)


def mixture(size_px: int) -> Mixture:
    """What the refiner learns from, in crops of so many pixels."""
    return Mixture(
        icdar2015=Share(0.6, CropRules(size_px=size_px, scale_range=(0.7, 1.5), by_word=0.5)),
        mlt=Share(0.1, CropRules(size_px=size_px, scale_range=(0.3, 1.1), by_word=0.7)),
        scenes=CropRules(size_px=size_px, scale_range=(0.5, 1.5), by_word=0.5),
        scene_uses=10,
    )


def train(args: argparse.Namespace) -> None:
    """Train until the minutes are up or a signal comes."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device: str = args.device
    model = (load_refiner(args.init) if args.init else Refiner()).to(
        device, memory_format=torch.channels_last
    )
    averaged = Averaged(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02)
    samples, minutes = 0, 0.0
    last = work / "last.pt"
    if last.exists():
        state = load_checkpoint(last, device)
        model.load_state_dict(state["model"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.steps = int(state["steps"])
        optimiser.load_state_dict(state["optimiser"])
        samples, minutes = int(state["samples"]), float(state["minutes"])
        print(f"resuming at {samples} samples, {minutes:.0f} minutes", flush=True)
    held_out = validation_samples(args.icdar2015) if args.icdar2015 else []
    sources = sources_of(args, mixture(args.crop))
    batches = feed(
        lambda worker: iter(
            Samples(sources, args.crop, args.batch, args.seed + samples + 10**6 * worker)
        ),
        args.workers,
    )
    logged = minutes
    losses: list[float] = []
    model.train()
    with session.Session(args.minutes, minutes, args.until) as run:
        while True:
            cooled = max(run.left / args.cooldown_minutes, 0.01)
            rate = args.lr * min(1.0, (averaged.steps + 1) / 100, cooled)
            for group in optimiser.param_groups:
                group["lr"] = rate
            pixels, wanted, aspect = (t.to(device) for t in tensors(next(batches)))
            with torch.autocast(device, torch.bfloat16):
                predicted = model(pixels.to(memory_format=torch.channels_last))
            loss = corner_loss(predicted, wanted, aspect)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            averaged.update(model)
            losses.append(float(loss.detach()))
            samples += len(pixels)
            run.lap()
            minutes = run.minutes
            if not run.over and minutes - logged < args.every:
                continue
            row = {"minutes": f"{minutes:.2f}", "samples": str(samples), "lr": f"{rate:.6f}"}
            row["loss"] = f"{np.mean(losses):.5f}"
            if held_out:
                figures = validate(averaged.module, held_out)
                row |= {n: f"{x:.4f}" for n, x in zip(FIGURES, figures, strict=True)}
            append_row(work / "log.csv", row)
            print(",".join(row.values()), flush=True)
            save_refiner(averaged.module, work / "refiner.npz")
            state = {
                "model": model.state_dict(),
                "averaged": averaged.module.state_dict(),
                "steps": averaged.steps,
                "optimiser": optimiser.state_dict(),
                "samples": samples,
                "minutes": minutes,
            }
            save_checkpoint(last, state)
            losses, logged = [], minutes
            if run.over:
                return


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train_refiner", description=__doc__.split("\n")[0])
    session.add_options(parser)
    add = parser.add_argument
    add("--every", type=float, default=4, help="minutes between log rows")
    add("--batch", type=int, default=64)
    add("--lr", type=float, default=2e-3, help="peak learning rate")
    train(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
