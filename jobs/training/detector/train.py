"""Train the word detector; the same command resumes.

    python -m jobs.training.detector.train --work DIR --icdar2015 DIR [--icdar2003 DIR] ...

Writes into ``--work``: ``last.pt`` (everything needed to resume, replaced atomically),
``detector.npz`` (the averaged weights as FP16), ``best.pt`` (those with the best validation F1),
``log.csv`` and ``curve.png``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from jobs.training.data import datasets
from jobs.training.detector.batches import Batches
from jobs.training.detector.crops import CropRules
from jobs.training.detector.fake_int8 import simulate_int8
from jobs.training.detector.network import DetectorTrunk, detector_loss
from jobs.training.detector.scores import validate
from jobs.training.detector.sources import Mixture, Share, sources_of, validation_photos
from jobs.training.detector.weights import load_trunk, save_weights
from jobs.training.loop import session
from jobs.training.loop.checkpoints import load_checkpoint, save_checkpoint
from jobs.training.loop.ema import Averaged
from jobs.training.loop.feed import feed
from jobs.training.loop.log import Panel, append_row, draw_curve

LOSSES = ("loss", "score", "overlap", "angle", "gap")  # columns of the log
FIGURES = ("threshold", "precision", "recall", "f1")
PAGE_SETS = ("pdf_pages_train", "forms_train", "receipts_words")
CURVE = (
    Panel("minutes", ("loss",), ("minutes of training", "loss")),
    Panel(
        "minutes",
        ("precision", "recall", "f1", "page_f1"),
        ("minutes of training", "photos 801-900, pages"),
        (0, 1),
    ),
)


def learning_rate(step: int, minutes: float, peak: float, warmup_steps: int = 300) -> float:
    """Warm-up, then down as 1 / sqrt(1 + hours): open-ended, so resumable."""
    return peak * min(1.0, (step + 1) / warmup_steps) / float(np.sqrt(1 + minutes / 60))


def mixture(size_px: int) -> Mixture:
    """What the detector learns from, in crops of so many pixels."""
    # these photos have few, large words: smaller scales bring them to the sizes of street scenes
    near = CropRules(size_px=size_px, scale_range=(0.3, 1.1), by_word=0.6)
    # pages are seen whole, and in tiles that are enlarged
    page = CropRules(
        size_px=size_px, scale_range=(0.7, 2.2), by_word=0.4, height_range_px=(9.0, 70.0),
        tilt_deg=5.0, quarter_turns=0.06,
    )  # fmt: skip
    plate = CropRules(
        size_px=size_px, scale_range=(0.05, 0.4), by_word=0.7, height_range_px=(12.0, 110.0)
    )
    web = CropRules(size_px=size_px, scale_range=(0.4, 1.3), by_word=0.6, tilt_deg=5.0)
    return Mixture(
        icdar2015=Share(0.55, CropRules(size_px=size_px, scale_range=(0.7, 1.5), by_word=0.25)),
        icdar2003=Share(0.1, near),
        mlt=Share(0.25, near),
        backgrounds=Share(0.05, CropRules(size_px=size_px, scale_range=(0.3, 1.5))),
        scenes=CropRules(size_px=size_px, scale_range=(0.5, 1.5), by_word=0.35),
        worlds={
            "pdf_pages_train": Share(0.12, page),
            "forms_train": Share(0.1, page),
            "receipts_words": Share(0.16, page),
            "born_digital_train": Share(0.06, web),
            "plates_india_train": Share(0.05, near),
            "plates_us_words": Share(0.08, plate),
            "mlt_french_masks": Share(0.08, near),
            "packages_words": Share(0.05, near),
        },
    )


def train(args: argparse.Namespace) -> None:
    """Train until the minutes are up or a signal comes; see the module's head."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device: str = args.device
    model = load_trunk(args.init) if args.init else DetectorTrunk()
    model = model.to(device).to(memory_format=torch.channels_last)
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
        state = load_checkpoint(last, device)
        model.load_state_dict(state["model"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.steps = int(state["steps_averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step, minutes, best = int(state["step"]), float(state["minutes"]), float(state["best"])
        print(f"resuming at step {step}, {minutes:.0f} minutes, best F1 {best:.3f}", flush=True)
    validation = validation_photos(args)
    measured: Path | None = args.validation or args.data
    pages = [
        page
        for name in PAGE_SETS
        if measured and (measured / name).is_dir()
        for page in datasets.pages(measured / name, "validate")
    ]
    sources = sources_of(args, mixture(args.crop))
    batches = feed(
        lambda worker: iter(Batches(sources, args.batch, seed=args.seed + step + 10**6 * worker)),
        args.workers,
    )
    if args.int8:  # the average computes as before: both are of the same weights
        simulate_int8(model)
    saved = logged = minutes
    scored = minutes if step else minutes - args.validate_every + 6
    sums = np.zeros(5)
    count = 0
    model.train()
    began, first = time.monotonic(), step
    with session.Session(args.minutes, minutes, args.until) as run:
        while not run.over:
            rate = learning_rate(step, minutes, args.lr, args.warmup_steps)
            rate *= min(1.0, run.left / args.cooldown_minutes)
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
            parts = (loss.total, loss.score, loss.overlap, loss.angle, loss.gap)
            sums += [float(x.detach()) for x in parts]
            count += 1
            step += 1
            run.lap()
            minutes = run.minutes
            due = bool(validation) and minutes - scored >= args.validate_every
            if due or minutes - logged >= 2:
                row = {"minutes": f"{minutes:.2f}", "step": str(step), "lr": f"{rate:.6f}"}
                row |= {n: f"{x:.4f}" for n, x in zip(LOSSES, sums / count, strict=True)}
                if due:
                    figures = validate(averaged.module, validation[:: args.validate_step], device)
                    row |= {n: f"{getattr(figures, n):.4f}" for n in FIGURES}
                    both = figures.f1
                    if pages:
                        of_pages = validate(averaged.module, pages, device)
                        row["page_f1"] = f"{of_pages.f1:.4f}"
                        both = (figures.f1 + of_pages.f1) / 2
                    scored = minutes
                    if both > best:
                        best = both
                        weights = {"averaged": averaged.module.state_dict()}
                        save_checkpoint(work / "best.pt", weights)
                append_row(work / "log.csv", row)
                print(",".join(row.values()), flush=True)
                if due:
                    draw_curve(work / "log.csv", work / "curve.png", CURVE)
                sums[:] = 0
                count = 0
                logged = minutes
            if minutes - saved >= args.save_every:
                save_state(last, model, averaged, optimiser, step, minutes, best)
                saved = minutes
    save_state(last, model, averaged, optimiser, step, minutes, best)
    crops = (step - first) * args.batch
    print(f"{crops} crops, {crops / (time.monotonic() - began):.1f} a second", flush=True)


def save_state(
    path: Path,
    model: nn.Module,
    averaged: Averaged[DetectorTrunk],
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
    save_checkpoint(path, state)
    save_weights(averaged.module.state_dict(), path.with_name("detector.npz"))


def arguments() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="train_detector", description=__doc__.split("\n")[0])
    session.add_options(parser)
    add = parser.add_argument
    add("--batch", type=int, default=8)
    add("--lr", type=float, default=1.5e-3, help="peak learning rate")
    add("--warmup-steps", type=int, default=300, help="until the rate is at its peak")
    add("--int8", action="store_true", help="with the rounding of INT8; for a run's end")
    add("--validate-every", type=float, default=10, help="minutes")
    add("--validate-step", type=int, default=2, help="every n-th validation photo is used")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    train(arguments().parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
