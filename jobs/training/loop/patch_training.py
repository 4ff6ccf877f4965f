# mypy: disable-error-code="misc,untyped-decorator"
"""The training loop of the small networks that look at patches: refiner and splitter.

It writes into ``--work``: ``last.pt`` (to resume), the averaged weights and ``log.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from jobs.training.loop import session
from jobs.training.loop.checkpoints import load_checkpoint, save_checkpoint
from jobs.training.loop.ema import Averaged
from jobs.training.loop.log import append_row

EMA = 0.998
WEIGHT_DECAY = 0.02
WARMUP_STEPS = 100
LEAST_RATE = 0.01  # of --lr, at the end of the cool-down


class Task(Protocol):
    """What is trained, and on what."""

    name: str
    """Of the weights' file, without its ending."""

    def fresh(self) -> nn.Module:
        """The network, untrained."""

    def load(self, path: Path) -> nn.Module:
        """The network with saved weights."""

    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights."""

    def batches(self, samples: int, averaged: nn.Module) -> Iterator[Any]:
        """Endless batches, to go on after so many samples."""

    def loss(self, model: nn.Module, batch: Any, device: str) -> tuple[Tensor, int]:
        """Loss of a batch, and its number of samples."""

    def figures(self, model: nn.Module) -> Mapping[str, float]:
        """What is logged of a network; may be empty."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of these networks' command lines."""
    session.add_options(parser)
    add = parser.add_argument
    add("--every", type=float, default=4, help="minutes between log rows")
    add("--batch", type=int, default=64)
    add("--detector", type=Path, help="a detector's IR whose rectangles are learnt from, too")
    add("--lr", type=float, default=2e-3, help="peak learning rate")


def train(args: argparse.Namespace, task: Task) -> None:
    """Train until the minutes are up or a signal comes."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device: str = args.device
    model = (task.load(args.init) if args.init else task.fresh()).to(
        device, memory_format=torch.channels_last
    )
    averaged = Averaged(model, EMA)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=WEIGHT_DECAY)
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
    batches = task.batches(samples, averaged.module)
    logged = minutes
    losses: list[float] = []
    model.train()
    with session.Session(args.minutes, minutes, args.until) as run:
        while True:
            cooled = max(run.left / args.cooldown_minutes, LEAST_RATE)
            rate = args.lr * min(1.0, (averaged.steps + 1) / WARMUP_STEPS, cooled)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss, count = task.loss(model, next(batches), device)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            averaged.update(model)
            losses.append(float(loss.detach()))
            samples += count
            run.lap()
            minutes = run.minutes
            if not run.over and minutes - logged < args.every:
                continue
            row = {"minutes": f"{minutes:.2f}", "samples": str(samples), "lr": f"{rate:.6f}"}
            row["loss"] = f"{np.mean(losses):.5f}"
            row |= {n: f"{x:.4f}" for n, x in task.figures(averaged.module).items()}
            append_row(work / "log.csv", row)
            print(",".join(row.values()), flush=True)
            task.save(averaged.module, work / f"{task.name}.npz")
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
