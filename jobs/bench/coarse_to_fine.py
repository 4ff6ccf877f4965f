"""What looking from coarse to fine loses and saves: ``--tiles auto`` beside ``--tiles all``.

    python -m jobs.bench.coarse_to_fine DIR [--model NAME] [--out CSV]

DIR holds ``images`` and ``gt``, as `jobs.bench.large_photos` writes them; kinds are told by the
names of the files. For each kind: passes and CPU seconds an image of both; words found by ``all``
above the bundle's threshold, and how many of them ``auto`` finds at the same place, and with the
same text; of the ground truth's words of three letters and more, those read right by each.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jobs.bench.peers import counted
from textspot_ray.config import ImageConfig
from textspot_ray.evaluation.ground_truth import DONT_CARE, parse_ground_truth
from textspot_ray.records import Word
from textspot_ray.spotting.spotter import TextSpotter

SAME_IOU = 0.5


@dataclass(slots=True)
class Row:
    """Sums of one kind of photo; ``a`` is ``auto``, ``b`` is ``all``."""

    kind: str
    photos: int = 0
    passes_a: int = 0
    passes_b: int = 0
    cpu_a: float = 0.0
    cpu_b: float = 0.0
    words_a: int = 0
    words_b: int = 0
    same_place: int = 0
    same_text: int = 0
    legible: int = 0
    right_a: int = 0
    right_b: int = 0


def compare(folder: Path, model: str, limit: int | None, threads: int) -> list[Row]:
    """Spot every photo both ways.

    Args:
        folder: With ``images`` and ``gt``.
        model: Of the bundle.
        limit: Photos of a kind at most.
        threads: Of an inference.
    """
    auto, everything = (
        TextSpotter.load(model, threads=threads, image=ImageConfig(tiles=tiles))
        for tiles in ("auto", "all")
    )
    rows: dict[str, Row] = {}
    taken: dict[str, int] = defaultdict(int)
    for path in sorted((folder / "images").iterdir()):
        kind = path.stem.rpartition("_")[0]
        taken[kind] += 1
        if limit is not None and taken[kind] > limit:
            continue
        row = rows.setdefault(kind, Row(kind))
        gt = parse_ground_truth((folder / "gt" / f"gt_{path.stem}.txt").read_bytes(), path.stem)
        data = path.read_bytes()
        a, row.cpu_a, passes = _spotted(auto, data, row.cpu_a)
        row.passes_a += passes
        b, row.cpu_b, passes = _spotted(everything, data, row.cpu_b)
        row.passes_b += passes
        row.photos += 1
        row.words_a += len(a)
        row.words_b += len(b)
        place, text = _same(a, b)
        row.same_place += place
        row.same_text += text
        wanted = counted([t for w in gt if w.text != DONT_CARE for t in w.text.split()])
        row.legible += wanted.total()
        row.right_a += (wanted & counted([word.text for word in a])).total()
        row.right_b += (wanted & counted([word.text for word in b])).total()
        print(
            f"  {path.name}: {len(a)} of {len(b)} words, right {row.right_a} of {row.right_b}",
            file=sys.stderr,
            flush=True,
        )
    return list(rows.values())


def _spotted(spotter: TextSpotter, data: bytes, cpu: float) -> tuple[list[Word], float, int]:
    started = time.process_time()
    result = spotter.spot(data)
    cpu += time.process_time() - started
    if result.error is not None:
        raise SystemExit(result.error.message)
    words = [w for w in result.words if w.text_confidence >= spotter.text_threshold]
    return words, cpu, 0 if result.info is None else result.info.tiles


def _same(a: Sequence[Word], b: Sequence[Word]) -> tuple[int, int]:
    """How many of b are in a: at their place, and with their text as well."""
    if not a or not b:
        return 0, 0
    one, two = (np.array([w.box for w in words], np.float64) for words in (b, a))
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    both = np.prod((high - low).clip(0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, two)]
    iou = both / (areas[0][:, None] + areas[1][None] - both)
    place = iou.max(axis=1) >= SAME_IOU
    texts = [b[i].text == a[int(iou[i].argmax())].text for i in range(len(b))]
    return int(place.sum()), int((place & np.array(texts)).sum())


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| kind | photos | passes auto / all | CPU s auto / all | words auto / all | of these "
        "at their place | with their text | read right auto / all |",
        "|---" * 8 + "|",
    ]
    for r in rows:
        of = max(r.words_b, 1)
        lines.append(
            f"| {r.kind} | {r.photos} | {r.passes_a / r.photos:.1f} / {r.passes_b / r.photos:.1f} "
            f"| {r.cpu_a / r.photos:.3f} / {r.cpu_b / r.photos:.3f} | {r.words_a} / {r.words_b} "
            f"| {r.same_place / of:.1%} | {r.same_text / of:.1%} "
            f"| {r.right_a} / {r.right_b} of {r.legible} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(prog="coarse_to_fine", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR")
    add("--model", default="embedded")
    add("--limit", type=int, metavar="N", help="photos of a kind at most")
    add("--threads", type=int, default=1, metavar="N")
    add("--out", type=Path, metavar="CSV")
    args = parser.parse_args(argv)
    rows = compare(args.folder, args.model, args.limit, args.threads)
    print(table(rows))
    if args.out is not None:
        names = [field.name for field in fields(Row)]
        with args.out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(names)
            writer.writerows([[getattr(row, name) for name in names] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
