# mypy: disable-error-code="misc,untyped-decorator"
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
import csv
import io
import json
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textspot_ray.training import network as net
from textspot_ray.training import reader_data as data
from textspot_ray.training.muon import Muon

IGNORE = -100


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


class Reader(nn.Module):
    """Encoder and decoder under one roof, with the training losses."""

    def __init__(self, size: net.ReaderSize) -> None:
        super().__init__()
        self.encoder = net.Encoder(size)
        self.decoder = net.Decoder(size)

    def encode(self, pixels: Tensor, codes: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """[K, 56, 224, 3] uint8 and [K, 2] -> columns [K, 56, 256], CTC logits [K, 56, 37]."""
        image = pixels.permute(0, 3, 1, 2).float()
        patches = torch.cat((image, net.shape_plane(codes)), 1)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            columns, ctc = self.encoder.columns(patches)
        return columns.float(), ctc.float()


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


def attention_targets(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Inputs and targets of teacher forcing.

    Args:
        texts: K targets of a-z0-9.

    Returns:
        Inputs [K, L] (SOS, then the word) and targets [K, L] (the word, then EOS; -100 where
        nothing is to be learnt), L = longest word + 1.
    """
    length = max(len(t) for t in texts) + 1
    inputs = torch.full((len(texts), length), net.EOS)
    targets = torch.full((len(texts), length), IGNORE)
    for i, text in enumerate(texts):
        symbols = torch.tensor([net.ALPHABET.index(c) + 2 for c in text], dtype=torch.long)
        inputs[i, 0] = net.SOS
        inputs[i, 1 : len(text) + 1] = symbols
        targets[i, : len(text)] = symbols
        targets[i, len(text)] = net.EOS
    return inputs, targets


def ctc_targets(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """CTC labels (1..36) of all words in one row, and each word's length."""
    labels = [net.ALPHABET.index(c) + 1 for text in texts for c in text]
    lengths = [len(t) for t in texts]
    return torch.tensor(labels, dtype=torch.long), torch.tensor(lengths, dtype=torch.long)


def losses(
    reader: Reader, batch: data.Batch, recipe: Recipe, device: torch.device, bf16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """CTC loss, attention loss (both a mean over symbols), CTC logits [K, 56, 37]."""
    pixels = torch.from_numpy(batch.pixels).to(device, non_blocking=True)
    codes = torch.from_numpy(batch.codes).to(device, non_blocking=True)
    columns, ctc = reader.encode(pixels, codes, bf16)
    labels, lengths = ctc_targets(batch.texts)
    n_symbols = float(lengths.sum() + len(batch.texts))
    ctc_loss = (
        F.ctc_loss(
            ctc.log_softmax(2).transpose(0, 1),
            labels.to(device),
            torch.full((len(batch.texts),), net.COLUMNS, dtype=torch.long),
            lengths,
            reduction="sum",
            zero_infinity=True,
        )
        / n_symbols
    )
    inputs, targets = (t.to(device) for t in attention_targets(batch.texts))
    wrong = torch.rand(inputs.shape, device=device) < recipe.wrong_symbol
    wrong[:, 0] = False
    noise = torch.randint(2, net.N_SYMBOLS, inputs.shape, device=device)
    logits = reader.decoder.teach(columns, torch.where(wrong, noise, inputs))
    attention_loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    return ctc_loss, attention_loss, ctc


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
    reader: Reader, words: Sequence[data.Word], device: torch.device, bf16: bool = False
) -> Score:
    """Read words along their true quads."""
    reader.eval()
    right = right_ctc = right_care = n_care = 0
    for start in range(0, len(words), 64):
        part = words[start : start + 64]
        batch = data.exact_batch(part)
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
            if data.is_care_word(word.text):
                n_care += 1
                right_care += text == target
    n = max(1, len(words))
    return Score(right / n, right_ctc / n, right_care / max(1, n_care), n_care)


class BatchFeed:
    """Batches made in ``workers`` threads ahead of the network, or in line when 0.

    OpenCV and numpy release the interpreter's lock for most of the work, so on a machine with
    cores to spare a few threads keep up with a small network; processes would cost copies.
    """

    def __init__(self, sources: Sequence[data.WordSource], workers: int) -> None:
        self.sources = sources
        self.level = (0.0, 0.0, 0.0)
        self._queue: queue.Queue[data.Batch] = queue.Queue(maxsize=max(1, 2 * workers))
        for source in sources[:workers]:
            threading.Thread(target=self._fill, args=(source,), daemon=True).start()
        self._inline = workers == 0

    def _fill(self, source: data.WordSource) -> None:
        while True:
            self._queue.put(source.next(*self.level))

    def next(self, difficulty: float, real_share: float, empty_share: float) -> data.Batch:
        """The next batch; the arguments hold for batches begun from now on."""
        self.level = (difficulty, real_share, empty_share)
        return self.sources[0].next(*self.level) if self._inline else self._queue.get()


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
        self.average = Reader(size).to(device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.reader.state_dict())
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

    def step(self, batch: data.Batch, remaining: float = 1.0) -> tuple[float, float, float]:
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
            self.reader, batch, self.recipe, self.device, self.bf16
        )
        self.reader.zero_grad(set_to_none=True)
        (self.recipe.ctc_weight * ctc_loss + attention_loss).backward()
        nn.utils.clip_grad_norm_(self.reader.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        p = self.progress
        p.step += 1
        p.words += len(batch.texts)
        self._follow(min(self.recipe.ema, (1 + p.step) / (10 + p.step)))
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

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        own, other = self.average.state_dict(), self.reader.state_dict()
        floats = [k for k in own if own[k].is_floating_point()]
        torch._foreach_lerp_([own[k] for k in floats], [other[k] for k in floats], 1 - decay)

    def level(self) -> tuple[float, float, float]:
        """Difficulty, share of real crops, share of places without text: now."""
        p, r = self.progress, self.recipe
        joined = p.difficulty >= r.real_from
        return p.difficulty, joined * r.real_share, joined * r.empty_share

    def save(self, path: Path, source_state: dict[str, Any]) -> None:
        """Write everything a resume needs; replaces the file in one go."""
        size = self.reader.encoder.size
        state = {
            "reader": self.reader.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": {f.name: getattr(self.progress, f.name) for f in fields(Progress)},
            "size": size.to_dict(),
            "rng": json.dumps(source_state),
            "torch_rng": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        replace_file(path, buffer.getvalue())

    def restore(self, path: Path) -> dict[str, Any]:
        """Load what :meth:`save` wrote; returns the word source's generator state."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.reader.load_state_dict(state["reader"])
        self.average.load_state_dict(state["average"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["torch_rng"].cpu())
        self.started_at = self.progress.step
        return dict(json.loads(state["rng"]))

    def export(self, path: Path) -> None:
        """Write the averaged weights as FP16."""
        part = path.with_suffix(".part")
        net.save_reader(part, self.average.encoder.size, self.average.state_dict())
        part.replace(path)


def stored_size(path: Path) -> net.ReaderSize:
    """Widths and depths of a saved state."""
    size = torch.load(path, map_location="cpu", weights_only=True)["size"]
    return net.ReaderSize.from_dict(size)


def replace_file(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a kill leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a line to the log, with new columns where the row has some."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
    rows.append(row)
    names = list(dict.fromkeys(name for r in rows for name in r))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, buffer.getvalue().encode())


def draw_curve(log: Path, png: Path) -> None:
    """Plot the log's accuracies over words seen."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with log.open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    words = [float(r["words"]) for r in rows]
    figure, axes = plt.subplots(figsize=(9, 5))
    for name in rows[0]:
        if name.endswith(("_att", "_care")):
            axes.plot(words, [float(r[name] or "nan") for r in rows], label=name)
    axes.plot(words, [float(r["difficulty"]) for r in rows], "k--", label="difficulty")
    axes.set(xlabel="words seen", ylabel="words right", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(png, dpi=90)
    plt.close(figure)


def rendered_sets(renderer: data.Renderer, n: int = 100) -> dict[str, list[data.Word]]:
    """Three fixed sets of rendered words for measuring."""
    return {
        name: [renderer(np.random.default_rng([seed, i]), level) for i in range(n)]
        for seed, (name, level) in enumerate((("easy", 0.05), ("mid", 0.5), ("hard", 0.9)), 9000)
    }


def real_sets(folder: Path) -> dict[str, list[data.Word]]:
    """Real words of photos 801-900: full-resolution crops, as seen in the photos, and as seen
    there along quads that are off."""
    first, last = data.LAST_TRAIN_PHOTO + 1, data.LAST_VALIDATION_PHOTO
    photos = data.photo_crops(folder / "icdar2015_train", first, last)
    rng = np.random.default_rng(0)
    return {
        "crops": list(data.word_crops(folder / "icdar2015_words", first, last)),
        "photos": list(photos),
        "jittered": [replace(c, quad=data.jitter_quad(rng, c.quad, 0.8)) for c in photos],
        "empty": list(data.empty_crops(folder / "icdar2015_train", first, last)),
    }


def scene_renderer(extra_words: Sequence[str], backgrounds: Path | None) -> data.Renderer:
    """The project's own renderer with this machine's fonts and word list."""
    from textspot_ray.training import fonts, scenes, surfaces, words

    faces = fonts.find_fonts()
    vocabulary = words.load_vocabulary(extra=extra_words)
    library = surfaces.load_backgrounds(backgrounds) if backgrounds else None

    def render(rng: np.random.Generator, difficulty: float) -> data.Word:
        return scenes.render_word(rng, difficulty, faces, vocabulary, library)

    return render


def grow(trainer: Trainer, weights: Path) -> None:
    """Start from committed FP16 weights; blocks they lack start close to the identity.

    Not at it: with a gain of 0 the block's ReLU would pass no gradient, for ever.
    """
    _, encoder, decoder = net.load_reader(weights)
    for reader in (trainer.reader, trainer.average):
        for module, trained in ((reader.encoder, encoder), (reader.decoder, decoder)):
            missing, unexpected = module.load_state_dict(trained.state_dict(), strict=False)
            if unexpected:
                raise ValueError(f"{weights}: has weights this network lacks: {unexpected}")
            for name in missing:
                if name.endswith("body.1.weight"):
                    nn.init.constant_(module.get_parameter(name), 0.05)


def run(args: argparse.Namespace, recipe: Recipe, size: net.ReaderSize) -> None:
    """Train until the time is up."""
    torch.set_num_threads(args.threads)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    crops = data.train_crops(args.data, args.labels) if args.data else []
    empties = data.train_empties(args.data) if args.data else []
    backgrounds = args.data / "backgrounds" if args.data else None
    renderer = scene_renderer(sorted({c.text for c in crops}), backgrounds)
    sets = rendered_sets(renderer)
    if args.data:
        sets |= real_sets(args.data)
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
        data.WordSource(renderer, crops, seed + i, recipe.batch, recipe.reuse, empties=empties)
        for i in range(max(1, args.workers))
    ]
    if source_state:
        sources[0].restore(source_state)
    feed = BatchFeed(sources, args.workers)
    print(f"{len(crops)} real crops, {sum(p.numel() for p in trainer.reader.parameters())} weights")
    for row in _loop(trainer, feed, sets, args):
        append_row(work / "log.csv", row)
        draw_curve(work / "log.csv", work / "curve.png")
        trainer.save(state, sources[0].state())
        trainer.export(work / "reader.npz")
        print(" ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)


def _loop(
    trainer: Trainer,
    feed: BatchFeed,
    sets: dict[str, list[data.Word]],
    args: argparse.Namespace,
) -> Iterator[dict[str, float]]:
    """Steps; yields a log row every ``--every`` minutes and at the end."""
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    p = trainer.progress
    begin = last = time.monotonic()
    seconds_before = p.seconds
    end = begin + 60 * args.minutes
    cooldown = 60 * args.cooldown_minutes
    recent: list[tuple[float, float, float]] = []
    data_seconds = 0.0
    words_before = p.words
    while True:
        now = time.monotonic()
        remaining = min(1.0, (end - now) / cooldown) if cooldown else 1.0
        batch = feed.next(*trainer.level())
        data_seconds += time.monotonic() - now
        recent.append(trainer.step(batch, remaining))
        p.seconds = seconds_before + time.monotonic() - begin
        if not all(math.isfinite(n) for n in recent[-1]):
            raise FloatingPointError(f"loss is not finite at step {p.step}: {recent[-1]}")
        done = stop.is_set() or time.monotonic() >= end
        if time.monotonic() - last < 60 * args.every and not done:
            continue
        elapsed = time.monotonic() - last
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
        for name, words in sets.items():
            score = measure(trainer.average, words, trainer.device, trainer.bf16)
            row[f"{name}_att"] = round(score.attention, 4)
            row[f"{name}_ctc"] = round(score.ctc, 4)
            if score.n_care:
                row[f"{name}_care"] = round(score.care, 4)
        yield row
        if done:
            return
        last, recent, data_seconds, words_before = time.monotonic(), [], 0.0, p.words


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="train_reader", description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of state, log, weights")
    parser.add_argument("--data", type=Path, help="folder of unpacked ICDAR sets and backgrounds")
    parser.add_argument("--labels", type=Path, help="transcriptions of MLT words (.tsv)")
    parser.add_argument("--init", type=Path, help="FP16 weights to start from, when no state yet")
    parser.add_argument("--difficulty", type=float, default=0.6, help="to start at with --init")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cooldown-minutes", type=float, default=0, help="lr falls over the last")
    parser.add_argument("--every", type=float, default=4, help="minutes between log rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="threads that prepare batches")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--seed", type=int, default=1)
    for field in fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    size = net.ReaderSize()
    parser.add_argument("--tall-blocks", type=int, default=size.tall_blocks)
    parser.add_argument("--low-blocks", type=int, default=size.low_blocks)
    parser.add_argument("--dilations", type=int, nargs="+", default=size.dilations)
    args = parser.parse_args(argv)
    recipe = Recipe(**{f.name: getattr(args, f.name) for f in fields(Recipe)})
    size = replace(
        net.ReaderSize(),
        tall_blocks=args.tall_blocks,
        low_blocks=args.low_blocks,
        dilations=tuple(args.dilations),
    )
    run(args, recipe, size)


if __name__ == "__main__":
    main()
