"""Train the word detector; the same command resumes.

    python -m textspot_ray.training.train_detector --work DIR --icdar2015 DIR [--icdar2003 DIR] ...

Writes into ``--work``: ``last.pt`` (everything needed to resume, replaced atomically), ``best.pt``
(averaged weights with the best validation F1), ``log.csv`` and ``curve.png``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from textspot_ray.errors import UsageError
from textspot_ray.training import datasets
from textspot_ray.training.detector_batches import Batches, SceneSource, Source
from textspot_ray.training.detector_crops import CropRules
from textspot_ray.training.detector_network import DetectorTrunk, detector_loss
from textspot_ray.training.detector_scores import validate

LOG_FIELDS = (
    "minutes", "step", "lr", "loss", "score", "overlap", "angle", "threshold",
    "precision", "recall", "f1",
)  # fmt: skip


class Averaged:
    """Exponential moving average of a module's weights and buffers."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).eval()
        self.decay = decay
        self.steps = 0

    def update(self, module: nn.Module) -> None:
        """Take one step towards the module; the first steps follow it closely."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.module.state_dict(), module.state_dict()
        with torch.no_grad():
            for name, value in mine.items():
                if value.dtype.is_floating_point:
                    value.lerp_(theirs[name], 1 - decay)
                else:
                    value.copy_(theirs[name])


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill leaves either the old or the new one."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Load averaged weights from a checkpoint or from a weights file written by export.

    Raises:
        UsageError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; train first or give another --init")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            return {k: torch.from_numpy(data[k].astype(np.float32)) for k in data.files}
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights = state.get("averaged", state.get("weights", state))
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise UsageError(f"{path}: holds no weights; give last.pt, best.pt or detector.pt")
    return {k: v.float() if v.dtype.is_floating_point else v for k, v in weights.items()}


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as FP16 in an .npz, to go on from with ``--init`` (no pickle inside)."""
    arrays: dict[str, Any] = {
        k: v.detach().cpu().numpy().astype(np.float16)
        for k, v in weights.items()
        if v.dtype.is_floating_point
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_trunk(path: Path) -> DetectorTrunk:
    """Build the trunk with the weights of a checkpoint or an .npz.

    Raises:
        UsageError: the file holds weights of another network, or none.
    """
    trunk = DetectorTrunk()
    missing, unexpected = trunk.load_state_dict(load_weights(path), strict=False)
    if unexpected or any("num_batches" not in name for name in missing):
        raise UsageError(f"{path}: weights of another network; train again")
    trunk.eval()
    return trunk


def learning_rate(step: int, minutes: float, peak: float) -> float:
    """Warm-up over 300 steps, then down as 1 / sqrt(1 + hours): open-ended, so resumable."""
    return peak * min(1.0, (step + 1) / 300) / float(np.sqrt(1 + minutes / 60))


def draw_curve(log: Path, image: Path) -> None:
    """Plot validation figures and loss over training time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with log.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    axes[0].plot([r["minutes"] for r in rows], [r["loss"] for r in rows])
    axes[0].set(xlabel="minutes of training", ylabel="loss")
    scored = [r for r in rows if "f1" in r]
    for name in ("precision", "recall", "f1"):
        axes[1].plot([r["minutes"] for r in scored], [r[name] for r in scored], label=name)
    axes[1].set(xlabel="minutes of training", ylabel="photos 801-900", ylim=(0, 1))
    axes[1].legend()
    axes[1].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(image, dpi=80)
    plt.close(figure)


def sources_of(args: argparse.Namespace) -> list[Source | SceneSource]:
    """Load the sources named on the command line.

    Raises:
        UsageError: none was named.
        SourceError: a named folder is not what it should be.
    """
    size = args.crop
    photo = CropRules(size_px=size, scale_range=(0.7, 1.5), by_word=0.25)
    # these photos have few, large words: smaller scales bring them to the sizes of street scenes
    near = CropRules(size_px=size, scale_range=(0.3, 1.1), by_word=0.6)
    sources: list[Source | SceneSource] = []
    if args.icdar2015:
        sources.append(Source(datasets.icdar2015_training(args.icdar2015), 0.55, photo))
    if args.icdar2003:
        sources.append(Source(datasets.icdar_photos(args.icdar2003), 0.1, near))
    if args.mlt:
        sources.append(Source(datasets.mlt_photos(args.mlt), 0.25, near))
    if args.backgrounds:
        photos = datasets.background_photos(args.backgrounds)
        sources.append(Source(photos, 0.05, CropRules(size_px=size, scale_range=(0.3, 1.5))))
    if args.scenes:
        scene = CropRules(size_px=size, scale_range=(0.5, 1.5), by_word=0.35)
        sources.append(SceneSource(args.scenes, scene, args.backgrounds))
    if not sources:
        raise UsageError(
            "no training data: give at least one of --icdar2015, --icdar2003, --mlt, --scenes"
        )
    return sources


def train(args: argparse.Namespace) -> None:
    """Train until the minutes are up or a signal comes; see the module's head."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device: str = args.device
    model = DetectorTrunk().to(device).to(memory_format=torch.channels_last)
    if args.init:
        model.load_state_dict(load_trunk(args.init).state_dict())
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr,
    )
    averaged = Averaged(model)
    step, minutes, best = 0, 0.0, 0.0
    last = work / "last.pt"
    if last.exists():
        state = torch.load(last, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.steps = int(state["steps_averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step, minutes, best = int(state["step"]), float(state["minutes"]), float(state["best"])
        print(f"resuming at step {step}, {minutes:.0f} minutes, best F1 {best:.3f}", flush=True)
    validation = datasets.icdar2015_validation(args.icdar2015) if args.icdar2015 else []
    batches = iter(Batches(sources_of(args), args.batch, seed=args.seed + step))
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    began = mark = time.monotonic()
    minutes_before = minutes
    saved = logged = minutes
    scored = minutes if step else minutes - args.validate_every + 6
    sums = np.zeros(4)
    count = 0
    model.train()
    while not stopping and (mark - began) / 60 < args.minutes:
        left = args.minutes - (mark - began) / 60
        rate = learning_rate(step, minutes, args.lr) * min(1.0, left / args.cooldown_minutes)
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, targets = next(batches)
        images = images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            maps = model(images)
        loss = detector_loss(maps, targets.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if bool(torch.isfinite(norm)):
            optimiser.step()
            averaged.update(model)
        parts = (loss.total, loss.score, loss.overlap, loss.angle)
        sums += [float(x.detach()) for x in parts]
        count += 1
        step += 1
        mark = time.monotonic()
        minutes = minutes_before + (mark - began) / 60
        due = bool(validation) and minutes - scored >= args.validate_every
        if due or minutes - logged >= 2:
            row: list[object] = [f"{minutes:.2f}", step, f"{rate:.6f}"]
            row += [f"{x:.4f}" for x in sums / count]
            if due:
                figures = validate(averaged.module, validation[:: args.validate_step], device)
                row += [f"{x:.4f}" for x in (figures.threshold, figures.precision)]
                row += [f"{x:.4f}" for x in (figures.recall, figures.f1)]
                scored = minutes
                if figures.f1 > best:
                    best = figures.f1
                    save_atomically({"averaged": averaged.module.state_dict()}, work / "best.pt")
            append_row(work / "log.csv", row)
            print(",".join(map(str, row)), flush=True)
            if due:
                draw_curve(work / "log.csv", work / "curve.png")
            sums[:] = 0
            count = 0
            logged = minutes
        if minutes - saved >= 4 or stopping:
            save_state(last, model, averaged, optimiser, step, minutes, best)
            saved = minutes
    save_state(last, model, averaged, optimiser, step, minutes, best)


def save_state(
    path: Path,
    model: nn.Module,
    averaged: Averaged,
    optimiser: torch.optim.Optimizer,
    step: int,
    minutes: float,
    best: float,
) -> None:
    """Write everything needed to resume."""
    state = {
        "model": model.state_dict(),
        "averaged": averaged.module.state_dict(),
        "steps_averaged": averaged.steps,
        "optimiser": optimiser.state_dict(),
        "step": step,
        "minutes": minutes,
        "best": best,
    }
    save_atomically(state, path)


def append_row(path: Path, row: Sequence[object], names: Sequence[str] = LOG_FIELDS) -> None:
    """Append to a CSV file, with the heading if it is new."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(names)
        writer.writerow([*row, *[""] * (len(names) - len(row))])


def arguments() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="train_detector", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder for checkpoints and logs")
    add("--icdar2015", type=Path, help="folder with images/ and gt/; 801-900 validate")
    add("--icdar2003", type=Path, help="folder with images/ and gt/")
    add("--mlt", type=Path, help="folder with images/ and masks/")
    add("--backgrounds", type=Path, help="folder of photos without text")
    add("--scenes", type=float, default=0.0, help="share of rendered scenes, real photos being 1")
    add("--minutes", type=float, default=1e9, help="how long this run trains")
    add(
        "--cooldown-minutes",
        type=float,
        default=1e-6,
        help="the rate falls to nothing over the last so many of --minutes",
    )
    add("--threads", type=int, default=1)
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--init", type=Path, help="weights to start from, where --work has none")
    add("--batch", type=int, default=8)
    add("--crop", type=int, default=448, help="side of the crops, a multiple of 32")
    add("--lr", type=float, default=1.5e-3, help="peak learning rate")
    add("--seed", type=int, default=1)
    add("--validate-every", type=float, default=10, help="minutes")
    add("--validate-step", type=int, default=2, help="every n-th validation photo is used")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    train(arguments().parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
