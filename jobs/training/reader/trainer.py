# mypy: disable-error-code="misc,untyped-decorator"
"""The reader's trainer: recipe, optimisers, averaged weights, and how difficulty rises."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.training.loop.checkpoints import load_checkpoint, save_checkpoint
from jobs.training.loop.ema import Averaged
from jobs.training.loop.muon import Muon
from jobs.training.reader import network as net
from jobs.training.reader.batches import Batch
from jobs.training.reader.losses import Reader, losses
from textspot_ray.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        batch: words in a step.
        lr: peak learning rate, of Muon on hidden matrices and of AdamW on the rest.
        weight_decay: on matrices and filters alone.
        warmup_steps: linear warm-up, after every start.
        ema: decay of the averaged weights a step, once warm.
        ctc_weight: weight of the CTC loss beside the attention's 1.0.
        wrong_symbol: share of the decoder's inputs replaced at random, so that it looks at the
            word and not only at what it said.
        real_share: share of real crops once difficulty has passed ``real_from``.
        real_from: difficulty at which real crops join.
        empty_share: share of places without text, from then on.
        rise_above: share of rendered words (of the present difficulty, as distorted for training)
            read right by CTC above which difficulty rises.
        rise: how much it rises by.
        rise_wait_steps: steps at least between two rises.
        reuse: how often a rendered word is seen.
    """

    batch: int = 64
    lr: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    ema: float = 0.998
    ctc_weight: float = 1.0
    wrong_symbol: float = 0.08
    real_share: float = 0.3
    real_from: float = 0.1
    empty_share: float = 0.03
    rise_above: float = 0.7
    rise: float = 0.02
    rise_wait_steps: int = 30
    reuse: float = 4.0


@dataclass(slots=True)
class Progress:
    """Counters that survive a restart."""

    step: int = 0
    words: int = 0
    seconds: float = 0.0
    difficulty: float = 0.0
    running: float = 0.0
    last_rise: int = 0


def split_parameters(
    reader: Reader,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Hidden matrices and filters; first and last matrices and tables; vectors."""
    ends = ("conv1", "shape_bias", "ctc", "position", "embedding", "energy", "output")
    hidden, matrices, vectors = [], [], []
    for name, p in reader.named_parameters():
        if p.ndim <= 1:
            vectors.append(p)
        elif any(part in ends for part in name.split(".")):
            matrices.append(p)
        else:
            hidden.append(p)
    return hidden, matrices, vectors


class Trainer:
    """State of a run and its steps."""

    def __init__(
        self,
        recipe: Recipe,
        size: net.ReaderSize,
        device: torch.device,
        bf16: bool,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe = recipe
        self.device = device
        self.bf16 = bf16
        self.reader = Reader(size).to(device, memory_format=torch.channels_last)
        self.averaged = Averaged(self.reader, recipe.ema)
        hidden, matrices, vectors = split_parameters(self.reader)
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(hidden, recipe.lr, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(
                [
                    {"params": matrices, "weight_decay": recipe.weight_decay},
                    {"params": vectors, "weight_decay": 0.0},
                ],
                lr=recipe.lr,
                betas=(0.9, 0.98),
            ),
        ]
        self.progress = Progress()
        self.started_at = 0

    def learning_rate(self, remaining: float = 1.0) -> float:
        """Linear warm-up since the start; ``remaining`` < 1 while cooling down."""
        since = self.progress.step - self.started_at
        warm = min(1.0, (since + 1) / max(1, self.recipe.warmup_steps))
        return self.recipe.lr * warm * max(0.02, remaining)

    def step(self, batch: Batch, remaining: float = 1.0) -> tuple[float, float, float]:
        """One optimizer step.

        Args:
            batch: the examples.
            remaining: 1, falling to 0 over the cool-down.

        Returns:
            CTC loss, attention loss, share of the batch's rendered words that CTC reads.
        """
        self.reader.train()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(remaining)
        ctc_loss, attention_loss, ctc = losses(
            self.reader, batch, self.recipe.wrong_symbol, self.device, self.bf16
        )
        self.reader.zero_grad(set_to_none=True)
        (self.recipe.ctc_weight * ctc_loss + attention_loss).backward()
        nn.utils.clip_grad_norm_(self.reader.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        p = self.progress
        p.step += 1
        p.words += len(batch.texts)
        self.averaged.update(self.reader)
        read = net.read_ctc(ctc.detach())
        hits = [
            r == t for r, t, fake in zip(read, batch.texts, batch.rendered, strict=True) if fake
        ]
        share = float(np.mean(hits)) if hits else p.running
        p.running += 0.03 * (share - p.running)
        if (
            p.running > self.recipe.rise_above
            and p.step - p.last_rise >= self.recipe.rise_wait_steps
        ):
            p.difficulty = min(1.0, p.difficulty + self.recipe.rise)
            p.last_rise = p.step
        return ctc_loss.item(), attention_loss.item(), share

    def level(self) -> tuple[float, float, float]:
        """Difficulty, share of real crops, share of places without text: now."""
        p, r = self.progress, self.recipe
        joined = p.difficulty >= r.real_from
        return p.difficulty, joined * r.real_share, joined * r.empty_share

    def save(self, path: Path, source_state: dict[str, Any]) -> None:
        """Write everything a resume needs."""
        state = {
            "reader": self.reader.state_dict(),
            "average": self.averaged.module.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": {f.name: getattr(self.progress, f.name) for f in fields(Progress)},
            "size": self.reader.encoder.size.to_dict(),
            "rng": json.dumps(source_state),
            "torch_rng": torch.get_rng_state(),
        }
        save_checkpoint(path, state)

    def restore(self, path: Path) -> dict[str, Any]:
        """Load what :meth:`save` wrote; returns the word source's generator state."""
        state = load_checkpoint(path, self.device)
        self.reader.load_state_dict(state["reader"])
        self.averaged.module.load_state_dict(state["average"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.progress = Progress(**state["progress"])
        self.averaged.steps = self.progress.step
        torch.set_rng_state(state["torch_rng"].cpu())
        self.started_at = self.progress.step
        return dict(json.loads(state["rng"]))

    def export(self, path: Path) -> None:
        """Write the averaged weights as FP16."""
        average = self.averaged.module
        net.save_reader(path, average.encoder.size, average.state_dict())


def stored_size(path: Path) -> net.ReaderSize:
    """Widths and depths of a saved state."""
    return net.ReaderSize.from_dict(load_checkpoint(path)["size"])


def grow(trainer: Trainer, weights: Path) -> None:
    """Start from committed FP16 weights; blocks they lack start close to the identity.

    Not at it: with a gain of 0 the block's ReLU would pass no gradient, for ever.

    Raises:
        UsageError: the weights hold more than this network has.
    """
    encoder, decoder = net.load_reader(weights)
    for reader in (trainer.reader, trainer.averaged.module):
        for module, trained in ((reader.encoder, encoder), (reader.decoder, decoder)):
            missing, unexpected = module.load_state_dict(trained.state_dict(), strict=False)
            if unexpected:
                raise UsageError(f"{weights}: has weights this network lacks: {unexpected}")
            for name in missing:
                if name.endswith("body.1.weight"):
                    nn.init.constant_(module.get_parameter(name), 0.05)
