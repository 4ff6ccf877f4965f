# mypy: disable-error-code="misc,untyped-decorator"
r"""Train the refiner of word rectangles; the same command resumes.

    python -m jobs.training refiner --work DIR --icdar2015 DIR [--mlt DIR] [--data DIR] \
        [--scenes SHARE] [--detector textspot_ray/models/embedded/detector-int8.xml]

The network learns the way from rectangles to true corners. With ``--detector IR`` half of the
rectangles are those that this detector finds in the crops; the others are true ones, moved as a
detector's are off.
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
from jobs.training.data.datasets import ByteArray, FloatArray, Photo, PhotoWord
from jobs.training.detector.batches import SceneSource, Source
from jobs.training.detector.crops import CropRules, base_scale, recolour, rect_of_quad
from jobs.training.detector.network import ENLARGEMENT
from jobs.training.detector.scores import quad_iou
from jobs.training.detector.sources import Mixture, Share, sources_of, validation_photos
from jobs.training.loop import session
from jobs.training.loop.checkpoints import load_checkpoint, save_checkpoint
from jobs.training.loop.ema import Averaged
from jobs.training.loop.feed import feed
from jobs.training.loop.log import append_row
from jobs.training.reader.cutting import cut
from jobs.training.refiner.found import FoundRectangles, matched
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
POOL_BATCHES = 6  # that are held to draw a batch from
NEWTON_STEPS = 6  # exact after one where the quad is a parallelogram
SECOND_LOOKS = 0.5  # crops whose words are shown again along the corners of a first look
# Further off than this, in sides of what was shown, a network yet to learn leads nowhere.
MOST_WANTED = 2.0
# Share of the samples that have lost letters at an end. The detector learns from crops of 576 px
# and sees a part of words that are larger; there are few of those in the pictures to learn from.
LOST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One example.

    Attributes:
        pixels: [32, 128, 3] BGR.
        rect: [4, 2] the rectangle, or the quad of an earlier look, that was cut along.
        wanted: [4, 2] the true corners in its coordinates.
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
        ends[int(rng.integers(2))] = -rng.uniform(0.12, 0.55) * rect.width
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


def sample(image: ByteArray, quad: FloatArray, shown: FloatArray) -> Sample:
    """Cut the patch of a rectangle or quad and express the true corners in its coordinates."""
    pixels, _ = cut(image, shown, shape=REFINER_PATCH, enlargement=ENLARGEMENT)
    across = (shown[1] - shown[0] + shown[2] - shown[3]) / 2
    down = (shown[3] - shown[0] + shown[2] - shown[1]) / 2
    aspect = float(np.hypot(*across) / max(float(np.hypot(*down)), 1e-6))
    return Sample(pixels, shown, within(shown, quad), aspect)


def within(shown: FloatArray, points: FloatArray) -> FloatArray:
    """What `place` would have to be given to get these points: its inverse, by Newton's method.

    Args:
        shown: [4, 2] a convex quad.
        points: [N, 2] in the same pixels.
    """
    tl, tr, br, bl = shown.astype(np.float64)
    at = np.full((len(points), 2), 0.5)
    for _ in range(NEWTON_STEPS):
        u, v = at[:, :1], at[:, 1:]
        off = (tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v - points
        by_u = (tr - tl) * (1 - v) + (br - bl) * v
        by_v = (bl - tl) * (1 - u) + (br - tr) * u
        area = by_u[:, 0] * by_v[:, 1] - by_u[:, 1] * by_v[:, 0]
        area = np.where(np.abs(area) < 1e-6, 1e-6, area)
        at[:, 0] -= (off[:, 0] * by_v[:, 1] - off[:, 1] * by_v[:, 0]) / area
        at[:, 1] -= (off[:, 1] * by_u[:, 0] - off[:, 0] * by_u[:, 1]) / area
    return at.astype(np.float32)


def usable(word: PhotoWord, size_px: int) -> bool:
    """Whether a word of a crop is whole, readable and high enough to learn from."""
    inside = word.quad.min() >= 0 and float(word.quad.max()) <= size_px
    rect = rect_of_quad(word.quad)
    return word.legible and inside and rect.height >= LEAST_HEIGHT_PX and rect.width >= 6


class Samples:
    """Endless batches of found and of moved rectangles from crops of photos and scenes.

    Args:
        sources: What to crop.
        size_px: Side of the crops.
        batch: Samples a batch.
        seed: Of all chance.
        detector: Whose rectangles to learn from; None: moved ones alone.
        look: The network as it is, for samples of a second look; None: first looks alone.
    """

    def __init__(
        self,
        sources: Sequence[Source | SceneSource],
        size_px: int,
        batch: int,
        seed: int,
        detector: Path | None = None,
        look: nn.Module | None = None,
    ) -> None:
        self.sources = list(sources)
        self.size_px = size_px
        self.batch = batch
        self.rng = np.random.default_rng(seed)
        self.found = FoundRectangles(detector, size_px) if detector else None
        self.look = look

    def _draw(self) -> Iterator[Sample]:
        shares = np.array([s.share for s in self.sources])
        while True:
            source = self.sources[int(self.rng.choice(len(shares), p=shares / shares.sum()))]
            image, words = source.draw(self.rng)
            good = [w for w in words if usable(w, self.size_px)]
            if not good:
                continue
            image = recolour(self.rng, image)
            chosen = [good[int(i)].quad for i in self.rng.permutation(len(good))[:WORDS_A_CROP]]
            pairs = [(moved_rect(self.rng, quad), quad) for quad in chosen]
            if self.found is not None:
                quads = {id(word.quad) for word in good}
                found = [p for p in matched(self.found.rects(image), words) if id(p[1]) in quads]
                pairs += [
                    found[int(i)] for i in self.rng.permutation(len(found))[: 2 * WORDS_A_CROP]
                ]
            first = [sample(image, quad, rect) for rect, quad in pairs]
            yield from first
            if self.look is not None and self.rng.random() < SECOND_LOOKS:
                yield from self._second(image, first, [quad for _, quad in pairs])

    def _second(
        self, image: ByteArray, first: Sequence[Sample], quads: Sequence[FloatArray]
    ) -> Iterator[Sample]:
        assert self.look is not None
        pixels, _, _ = tensors(first)
        with torch.no_grad():
            at = self.look(pixels.to(next(self.look.parameters()).device)).cpu()
            shown = place(torch.from_numpy(np.stack([s.rect for s in first])), at).numpy()
        for quad, seen in zip(quads, shown, strict=True):
            again = sample(image, quad, seen)
            if np.abs(again.wanted - 0.5).max() < MOST_WANTED:
                yield again

    def __iter__(self) -> Iterator[list[Sample]]:
        """Mix samples of several crops: neighbours in a crop are alike."""
        samples = self._draw()
        pool = [next(samples) for _ in range(POOL_BATCHES * self.batch)]
        while True:
            drawn = self.rng.choice(len(pool), self.batch, replace=False)
            yield [pool[int(i)] for i in drawn]
            for i in drawn:
                pool[int(i)] = next(samples)


def tensors(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [K, 3, 32, 128], wanted corners [K, 4, 2], aspects [K]."""
    pixels = torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float()
    wanted = torch.from_numpy(np.stack([s.wanted for s in samples]))
    return pixels, wanted, torch.tensor([s.aspect for s in samples], dtype=torch.float32)


def validation_samples(photos: Sequence[Photo]) -> list[Sample]:
    """Moved rectangles of the validation photos' words, as the trunk sees them."""
    rng = np.random.default_rng(0)
    found = []
    for photo in photos:
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
    near = CropRules(size_px=size_px, scale_range=(0.3, 1.1), by_word=0.7)
    page = CropRules(
        size_px=size_px, scale_range=(0.7, 2.2), by_word=0.4, height_range_px=(11.0, 60.0),
        tilt_deg=5.0, quarter_turns=0.06,
    )  # fmt: skip
    plate = CropRules(
        size_px=size_px, scale_range=(0.05, 0.4), by_word=0.8, height_range_px=(12.0, 110.0)
    )
    return Mixture(
        icdar2015=Share(0.45, CropRules(size_px=size_px, scale_range=(0.7, 1.5), by_word=0.4)),
        icdar2003=Share(0.05, near),
        mlt=Share(0.08, near),
        scenes=CropRules(size_px=size_px, scale_range=(0.5, 1.5), by_word=0.4),
        scene_uses=10,
        worlds={
            "pdf_pages_train": Share(0.12, page),
            "forms_train": Share(0.07, page),
            "receipts_words": Share(0.12, page),
            "born_digital_train": Share(0.05, near),
            "plates_india_train": Share(0.02, near),
            "plates_us_words": Share(0.06, plate),
            "mlt_french_masks": Share(0.05, near),
        },
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
    held_out = validation_samples(validation_photos(args))
    sources = sources_of(args, mixture(args.crop))
    batches = feed(
        lambda worker: iter(
            Samples(
                sources,
                args.crop,
                args.batch,
                args.seed + samples + 10**6 * worker,
                args.detector,
                None if args.workers else averaged.module,
            )
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
    add("--detector", type=Path, help="a detector's IR whose rectangles are learnt from, too")
    add("--lr", type=float, default=2e-3, help="peak learning rate")
    train(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
