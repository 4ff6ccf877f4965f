# mypy: disable-error-code="misc"
"""Trains the reader: rendered words from easy to hard, real crops mixed in.

The same command resumes; SIGTERM ends a run as if its time were up. Everything is below
``--work``: ``state.pt`` (network, averaged network, optimizer, counters; replaced atomically),
``reader.npz`` (the averaged weights as FP16, what the export and later sessions start from),
``log.csv`` and ``curve.png``.

Two losses: CTC on the encoder's 56 columns, which finds the letters first, and the attention
decoder's cross-entropy under teacher forcing. Difficulty rises while rendered words of the present
difficulty are read; real crops join once it has left the easiest.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from jobs.training.data.word_crop import Word
from jobs.training.loop.log import Panel, append_row, draw_curve, read_rows
from jobs.training.loop.session import Session, end_time, usable_device
from jobs.training.reader.batches import BatchFeed, WordSource
from jobs.training.reader.crops import train_empties, train_sets, validation_sets
from jobs.training.reader.network import ReaderSize
from jobs.training.reader.scene_words import scene_empties, word_renderer
from jobs.training.reader.scores import measure, real_sets, rendered_sets
from jobs.training.reader.trainer import Recipe, Trainer, grow, stored_size
from jobs.training.render.fonts import find_fonts
from jobs.training.render.surfaces import load_backgrounds
from jobs.training.render.words import load_vocabulary
from jobs.training.render.worlds import Props

RENDERED_EMPTIES = 400  # places without text, where no photos are learnt from


def props_of(extra_words: Sequence[str], backgrounds: Path | None) -> Props:
    """What is rendered with: this machine's fonts and word list, and photos where there are."""
    library = load_backgrounds(backgrounds) if backgrounds else None
    return Props(find_fonts(), load_vocabulary(extra=extra_words), library)


def backgrounds_of(data: Path | None) -> Path | None:
    """The folder of backgrounds below the data sets, if it is there."""
    folder = data / "backgrounds" if data else None
    return folder if folder and folder.is_dir() else None


def run(args: argparse.Namespace, recipe: Recipe, size: ReaderSize) -> None:
    """Train until the time is up."""
    torch.set_num_threads(args.threads)
    # a pool of OpenCV's threads does not live on in forked processes, which then wait for it
    cv2.setNumThreads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    kinds = train_sets(args.data, args.labels) if args.data else []
    crops = [crop for kind in kinds for crop in kind.crops]
    shares = [kind.share / len(kind.crops) for kind in kinds for _ in kind.crops]
    props = props_of(sorted({c.text for c in crops}), backgrounds_of(args.data))
    renderer = word_renderer(props)
    empties = train_empties(args.data) if args.data else []
    empties = empties or scene_empties(props, RENDERED_EMPTIES)
    sets: dict[str, Sequence[Word]] = dict(rendered_sets(renderer))
    validation: Path | None = args.validation or args.data
    if validation:
        sets |= real_sets(validation) | validation_sets(validation)
    state = work / "state.pt"
    trainer = Trainer(recipe, stored_size(state) if state.exists() else size, device, args.bf16)
    seed = args.seed
    source_state: dict[str, Any] | None = None
    if state.exists():
        source_state = trainer.restore(state)
    elif args.init:
        grow(trainer, args.init)
        trainer.progress.difficulty = args.difficulty
    sources = [
        WordSource(
            renderer, crops, seed + i, recipe.batch, recipe.reuse, empties=empties, shares=shares
        )
        for i in range(max(1, args.workers))
    ]
    if source_state:
        sources[0].restore(source_state)
    feed = BatchFeed(sources, args.workers)
    print(f"{len(crops)} real crops, {sum(p.numel() for p in trainer.reader.parameters())} weights")
    for row in _loop(trainer, feed, sets, args):
        if not row:
            trainer.save(state, sources[0].state())
            trainer.export(work / "reader.npz")
            continue
        append_row(work / "log.csv", row)
        draw_curve(work / "log.csv", work / "curve.png", curve(work / "log.csv"))
        trainer.save(state, sources[0].state())
        trainer.export(work / "reader.npz")
        print(" ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)


def curve(log: Path) -> tuple[Panel, ...]:
    """Accuracies of all sets over words seen, with the difficulty reached."""
    sets = tuple(name for name in read_rows(log)[0] if name.endswith(("_att", "_care")))
    return (Panel("words", sets, ("words seen", "words right"), (0, 1), ("difficulty",)),)


def _loop(
    trainer: Trainer, feed: BatchFeed, sets: Mapping[str, Sequence[Word]], args: argparse.Namespace
) -> Iterator[dict[str, float]]:
    """Steps; yields a log row every ``--every`` minutes and at the end.

    Between them an empty row every ``--save-every`` minutes, where the state is to be saved.
    """
    p = trainer.progress
    last = saved = time.monotonic()
    recent: list[tuple[float, float, float]] = []
    data_seconds = 0.0
    words_before = p.words
    with Session(args.minutes, p.seconds / 60, args.until) as session:
        while True:
            session.lap()
            cooldown = args.cooldown_minutes
            remaining = min(1.0, session.left / cooldown) if cooldown else 1.0
            now = time.monotonic()
            batch = feed.next(*trainer.level())
            data_seconds += time.monotonic() - now
            recent.append(trainer.step(batch, remaining))
            session.lap()
            p.seconds = 60 * session.minutes
            if not all(math.isfinite(n) for n in recent[-1]):
                raise FloatingPointError(f"loss is not finite at step {p.step}: {recent[-1]}")
            elapsed = time.monotonic() - last
            if elapsed < 60 * args.every and not session.over:
                if time.monotonic() - saved >= 60 * args.save_every:
                    yield {}
                    saved = time.monotonic()
                continue
            yield {}  # saved before it is measured, which takes its time
            row: dict[str, float] = {
                "step": p.step,
                "words": p.words,
                "seconds": round(p.seconds),
                "words_s": round((p.words - words_before) / elapsed, 1),
                "data_share": round(data_seconds / elapsed, 3),
                "lr": trainer.learning_rate(remaining),
                "difficulty": round(p.difficulty, 3),
                "ctc_loss": round(float(np.mean([r[0] for r in recent])), 4),
                "att_loss": round(float(np.mean([r[1] for r in recent])), 4),
                "batch_ctc": round(p.running, 4),
            }
            yield row | _scores(trainer, sets)
            if session.over:
                return
            last, recent, data_seconds, words_before = time.monotonic(), [], 0.0, p.words
            saved = last


def _scores(trainer: Trainer, sets: Mapping[str, Sequence[Word]]) -> dict[str, float]:
    """Shares of each set that the averaged network reads right."""
    row = {}
    for name, words in sets.items():
        score = measure(trainer.averaged.module, words, trainer.device, trainer.bf16)
        row[f"{name}_att"] = round(score.attention, 4)
        row[f"{name}_ctc"] = round(score.ctc, 4)
        if score.n_care:
            row[f"{name}_care"] = round(score.care, 4)
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train_reader", description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of state, log, weights")
    parser.add_argument("--data", type=Path, help="folder of unpacked ICDAR sets and backgrounds")
    parser.add_argument(
        "--validation", type=Path, help="folder of unpacked sets to measure on; --data by default"
    )
    parser.add_argument("--labels", type=Path, help="transcriptions of MLT words (.tsv)")
    parser.add_argument("--init", type=Path, help="FP16 weights to start from, when no state yet")
    parser.add_argument("--difficulty", type=float, default=0.6, help="to start at with --init")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cooldown-minutes", type=float, default=0, help="lr falls over the last")
    parser.add_argument("--every", type=float, default=4, help="minutes between log rows")
    parser.add_argument("--save-every", type=float, default=1e9, help="minutes between checkpoints")
    parser.add_argument("--until", type=end_time, help="HH:MM[:SS] by which it has ended, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--device", type=usable_device, default="cpu", metavar="{cpu,cuda}")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--seed", type=int, default=1)
    for field in fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    size = ReaderSize()
    parser.add_argument("--tall-blocks", type=int, default=size.tall_blocks)
    parser.add_argument("--low-blocks", type=int, default=size.low_blocks)
    parser.add_argument("--dilations", type=int, nargs="+", default=size.dilations)
    args = parser.parse_args(argv)
    recipe = Recipe(**{f.name: getattr(args, f.name) for f in fields(Recipe)})
    size = replace(
        ReaderSize(),
        tall_blocks=args.tall_blocks,
        low_blocks=args.low_blocks,
        dilations=tuple(args.dilations),
    )
    run(args, recipe, size)


if __name__ == "__main__":
    main()
