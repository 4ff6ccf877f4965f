"""Other programs beside ours, in turn, on several sets: images a second and words read right.

    python -m jobs.bench.peers --set street=DIR --set large=DIR --set pages=DIR --csv F --plot F

A set holds ``images`` and ``gt`` (ICDAR2015's form), as `jobs.bench.large_photos` writes them. Each
program is a process of its own that is started once; rounds take turns, so that what else the
machine does disturbs all alike. Programs that are not installed are left out, and said so. With
``--baseline VENV`` an older build of ours runs beside today's, from its own environment.

Accuracy is told alike for all, whatever their boxes: of an image's words of three letters and
digits or more, in whatever order and case, those that are in the ground truth (F of all images).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.bench.timing import cpu_seconds
from textspot_ray.engine.sizing import available_cpus
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import DONT_CARE, parse_ground_truth

SUFFIXES = (".jpg", ".jpeg", ".png")
LEAST = 3  # letters and digits of a word that counts
_NOT_INSTALLED = 7  # exit status of a program whose library is not there

# Each program defines `spot(paths, cores, option)`: texts of each image, in their order.
_FRAME = """
import json, logging, os, sys
logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
cores, option = int(sys.argv[1]), sys.argv[2]
try:
    {load}
except ImportError:
    sys.exit(7)
print("ready", file=answers)
for line in sys.stdin:
    print(json.dumps(spot(json.loads(line))), file=answers)
"""
_OURS = """
    import queue
    from concurrent.futures import ThreadPoolExecutor
    from textspot_ray import TextSpotter
    idle = queue.SimpleQueue()  # a spotter a core, as the engine has a stream a core
    for _ in range(cores):
        idle.put(TextSpotter.load(option, threads=1))
    pool = ThreadPoolExecutor(cores)
    def one(path):
        spotter = idle.get()
        try:
            return [w.text for w in spotter(path, min_confidence=spotter.text_threshold)]
        finally:
            idle.put(spotter)
    def spot(paths):
        return list(pool.map(one, paths))
"""
_RAPIDOCR = """
    from rapidocr import RapidOCR
    engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": cores})
    def spot(paths):
        return [" ".join(engine(path).txts or ()).split() for path in paths]
"""
_FASTER_PADDLE = """
    from faster_paddle import OcrEngine
    engine = OcrEngine(model_size=option, threads=cores)
    def spot(paths):
        pages = engine.ocr_batch([open(path, "rb").read() for path in paths], batch_size=4)
        return [page["text"].split() for page in pages]
"""
_TESSERACT = """
    import shutil, subprocess
    from concurrent.futures import ThreadPoolExecutor
    if shutil.which("tesseract") is None:
        raise ImportError
    os.environ["OMP_THREAD_LIMIT"] = "1"
    pool = ThreadPoolExecutor(cores)
    def one(path):
        done = subprocess.run(["tesseract", path, "-"], capture_output=True, text=True)
        return done.stdout.split()
    def spot(paths):
        return list(pool.map(one, paths))
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to run.

    Attributes:
        name: In the table.
        load: Its part of the frame, indented.
        option: Model or size.
        python: Interpreter.
    """

    name: str
    load: str
    option: str = ""
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Result:
    """One program on one set."""

    name: str
    images_set: str
    images: int
    ms: float  # an image, median of the rounds
    cpu_ms: float
    images_per_s: float
    precision: float
    recall: float
    f: float


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Photos and the words that count in each."""

    name: str
    photos: tuple[Path, ...]
    words: tuple[Counter[str], ...]


class Running:
    """A peer's process.

    Raises:
        UsageError: It cannot be started; the message says why.
    """

    def __init__(self, peer: Peer, cores: int) -> None:
        self.peer = peer
        program, is_own = _FRAME.format(load=peer.load.strip()), peer.python == sys.executable
        self._process = subprocess.Popen(
            # of another environment, nothing that lies in this folder
            [peer.python, *([] if is_own else ["-P"]), "-c", program, str(cores), peer.option],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=None if is_own else {**os.environ, "PYTHONPATH": ""},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            _, said = self._process.communicate()
            if self._process.returncode == _NOT_INSTALLED:
                raise UsageError(f"{peer.name} is not installed")
            last = (said.strip().splitlines() or ["it ended without a word"])[-1]
            raise UsageError(f"{peer.name} does not start: {last}")

    def spot(self, photos: Sequence[Path]) -> list[list[str]]:
        """Texts of each photo.

        Raises:
            UsageError: The process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(p.resolve()) for p in photos]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            _, said = self._process.communicate()
            last = (said.strip().splitlines() or ["without a word"])[-1]
            raise UsageError(f"{self.peer.name} ended: {last}")
        texts: list[list[str]] = json.loads(answer)
        return texts

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def counted(texts: Sequence[str]) -> Counter[str]:
    """Words of letters and digits, in lower case, that are long enough to count."""
    words = ("".join(c for c in text.lower() if c.isalnum()) for text in texts)
    return Counter(word for word in words if len(word) >= LEAST)


def read_set(name: str, folder: Path, limit: int | None) -> ImageSet:
    """Photos of a folder that have ground truth.

    Raises:
        UsageError: There are none.
    """
    inner = folder / "images"
    if not inner.is_dir():
        raise UsageError(f"{folder} has no folder images beside gt")
    photos, words = [], []
    for photo in sorted(p for p in inner.iterdir() if p.suffix.lower() in SUFFIXES):
        labels = folder / "gt" / f"gt_{photo.stem}.txt"
        if labels.is_file() and (limit is None or len(photos) < limit):
            gt = parse_ground_truth(labels.read_bytes(), labels.name)
            photos.append(photo)
            # lines, as receipts have them, are words after all
            words.append(counted([t for w in gt if w.text != DONT_CARE for t in w.text.split()]))
    if not photos:
        raise UsageError(f"{folder} has no images with ground truth gt/gt_NAME.txt")
    return ImageSet(name, tuple(photos), tuple(words))


def compare(
    peers: Sequence[Peer], sets: Sequence[ImageSet], rounds: int, cores: int
) -> list[Result]:
    """Run every peer on every set, in turn.

    Args:
        peers: Programs; those that do not start are left out.
        sets: Images.
        rounds: Counted ones; one more comes before them.
        cores: Each may use.
    """
    running = []
    try:
        for peer in peers:
            try:
                running.append(Running(peer, cores))
            except UsageError as exc:
                _say(f"left out: {exc}")
        return [result for each in sets for result in _on_set(running, each, rounds)]
    finally:
        for one in running:
            one.close()


def _on_set(running: Sequence[Running], images: ImageSet, rounds: int) -> list[Result]:
    wall: dict[str, list[float]] = {one.peer.name: [] for one in running}
    cpu: dict[str, list[float]] = {one.peer.name: [] for one in running}
    scores: dict[str, tuple[float, float, float]] = {}
    n = len(images.photos)
    for number in range(rounds + 1):
        for one in running:
            name, before, cpu_before = one.peer.name, time.perf_counter(), cpu_seconds()
            texts = one.spot(images.photos)
            spent, cpu_spent = time.perf_counter() - before, cpu_seconds() - cpu_before
            _say(f"{images.name}, {name}: {1e3 * spent / n:.0f} ms an image")
            if number:
                wall[name].append(1e3 * spent / n)
                cpu[name].append(1e3 * cpu_spent / n)
            scores[name] = _f([counted(found) for found in texts], images.words)
    return [
        Result(
            name,
            images.name,
            n,
            statistics.median(wall[name]),
            statistics.median(cpu[name]),
            1e3 / statistics.median(wall[name]),
            *scores[name],
        )
        for name in wall
    ]


def _f(found: Sequence[Counter[str]], wanted: Sequence[Counter[str]]) -> tuple[float, float, float]:
    """Precision, recall and F of bags of words, over all images."""
    right = sum((a & b).total() for a, b in zip(found, wanted, strict=True))
    made, there = sum(a.total() for a in found), sum(b.total() for b in wanted)
    precision, recall = right / max(made, 1), right / max(there, 1)
    return precision, recall, 2 * right / max(made + there, 1)


def table(results: Sequence[Result]) -> str:
    """Markdown: a row a program, for each set its images a second and its F."""
    sets = list(dict.fromkeys(r.images_set for r in results))
    lines = [
        "| program | " + " | ".join(f"{s}: images/s | ms | CPU ms | F" for s in sets) + " |",
        "|---" * (1 + 4 * len(sets)) + "|",
    ]
    by = {(r.name, r.images_set): r for r in results}
    for name in dict.fromkeys(r.name for r in results):
        cells = [by[name, s] for s in sets]
        shown = (
            f"{r.images_per_s:.2f} | {r.ms:.0f} | {r.cpu_ms:.0f} | {100 * r.f:.1f}" for r in cells
        )
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path) -> None:
    """Images a second against F, a panel a set.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as exc:
        raise UsageError("--plot needs matplotlib: pip install 'textspot-ray[train]'") from exc
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(r.images_set for r in results))
    figure, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.8), squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        for r in (r for r in results if r.images_set == name):
            axis.plot(r.images_per_s, 100 * r.f, "o")
            axis.annotate(
                r.name, (r.images_per_s, 100 * r.f), textcoords="offset points", xytext=(5, 4)
            )
        axis.set_xscale("log")
        axis.set_title(name)
        axis.set_xlabel("images a second")
        axis.set_ylabel("F of words, %")
        axis.margins(0.25)
    figure.tight_layout()
    figure.savefig(path)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _peers(args: argparse.Namespace) -> list[Peer]:
    known = {
        "rapidocr": Peer("rapidocr", _RAPIDOCR),
        "faster-paddle-tiny": Peer("faster-paddle-tiny", _FASTER_PADDLE, "tiny"),
        "faster-paddle-small": Peer("faster-paddle-small", _FASTER_PADDLE, "small"),
        "tesseract": Peer("tesseract", _TESSERACT),
    }
    ours = [Peer(f"textspot {model}", _OURS, model) for model in args.model or ("embedded",)]
    if args.baseline is not None:
        python = args.baseline / "bin" / "python"
        if not python.exists():
            raise UsageError(f"{args.baseline} is no virtual environment: it has no bin/python")
        ours += [Peer(f"{peer.name}, before", peer.load, peer.option, str(python)) for peer in ours]
    return ours + [peer for name, peer in known.items() if not args.peer or name in args.peer]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(prog="peers", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--set", action="append", required=True, metavar="NAME=DIR", help="may be repeated")
    add("--model", action="append", metavar="NAME|DIR", help="of ours (default embedded)")
    add("--peer", action="append", metavar="NAME", help="only this one; none: ours alone")
    add("--baseline", type=Path, metavar="VENV", help="environment of an older build of ours")
    add("--limit", type=int, metavar="N", help="images of a set at most")
    add("--rounds", type=int, default=3, metavar="N")
    add("--cores", type=int, default=max(1, int(available_cpus())), metavar="N")
    add("--csv", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="FILE", help="SVG, PNG or PDF")
    args = parser.parse_args(argv)
    try:
        pairs = [text.partition("=") for text in args.set]
        sets = [read_set(name, Path(folder), args.limit) for name, _, folder in pairs]
        results = compare(_peers(args), sets, args.rounds, args.cores)
        print(table(results))
        if args.csv is not None:
            with args.csv.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(Result.__dataclass_fields__))
                writer.writeheader()
                writer.writerows(asdict(result) for result in results)
        if args.plot is not None:
            plot(results, args.plot)
    except UsageError as exc:
        print(f"peers: {exc}", file=sys.stderr)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
