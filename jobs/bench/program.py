"""Measures the pipeline's speed as ratios within one run, and sweeps its settings.

Without options: the full-size stand-in (random weights, the published architecture) against the
published demo's way, the bare arithmetic and the bare detector, in int8 and bf16; then the
decoder's step, and Ray against the in-process engine. Variants take turns, so that a busy machine
disturbs all alike; the column "by CPU time" is disturbed least.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.bench import accuracy, embedded, report, suite
from jobs.bench.lines import against_rivals, mixed
from textspot_ray.commands.table_options import size
from textspot_ray.engine.sizing import available_cpus
from textspot_ray.errors import ExitCode, TextspotError, UsageError
from textspot_ray.evaluation.ground_truth import read_ground_truth
from textspot_ray.spotting.bundle import cache_folder

_PARTS = ("demo", "empty", "decoder", "ray")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; with ``--out``, also write the figures as JSON."""
    args = _parser().parse_args(argv)
    try:
        return _tables(args) if args.tables else _measure(args)
    except TextspotError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return exc.exit_code


def _measure(args: argparse.Namespace) -> int:
    options = suite.Options(
        photos=_photos(args.photos),
        work=args.work,
        precisions=tuple(args.precision or ("int8", "bf16")),
        cores=args.cores,
        streams=args.streams or args.cores,
        images=args.images or (4 if args.quick else 16),
        rounds=args.rounds or (2 if args.quick else 5),
        model=args.model,
        say=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    print(report.machine())
    if args.sweep is not None:
        return _sweep(options, args)
    lines: list[suite.Line] = []
    stages: list[suite.Stages] = []
    if args.rapidocr_accuracy:
        gt = read_ground_truth(args.rapidocr_accuracy)
        rival = accuracy.score_rapidocr(
            options.photos, gt, args.gt_size, args.rapidocr_python, options.cores
        )
        print("\n" + rival)
        return ExitCode.OK
    if args.lines:
        lines += against_rivals(options, args.alphabet, args.rival or ())
    elif args.embedded:
        for precision in args.precision or [None]:
            lines += embedded.against_rapidocr(options, args.rapidocr_python, precision)
    else:
        chosen = args.only or _PARTS
        for part, measure in (("demo", suite.against_demo), ("empty", suite.without_text)):
            if part in chosen:
                more, tables = measure(options)
                lines, stages = lines + more, stages + tables
        if "decoder" in chosen:
            lines += suite.decoder_steps(options)
        if "ray" in chosen:
            lines += suite.ray_against_local(options)
    print("\n" + report.ratio_table(lines))
    if stages:
        print("\n" + report.stage_table(stages))
    if args.out is not None:
        figures = {"machine": report.machine(), "lines": [asdict(line) for line in lines]}
        args.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return ExitCode.OK


def _tables(args: argparse.Namespace) -> int:
    from jobs.bench.table_bench import bench_tables, prepare
    from jobs.bench.table_bench import report as tables_report

    print(report.machine())
    compaction = prepare(
        args.tables,
        args.table_images,
        args.table_words,
        lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    timings = bench_tables(args.tables, args.rounds or (2 if args.quick else 5), args.cores)
    print("\n" + tables_report(timings, compaction))
    if args.out is not None:
        figures = {
            "machine": report.machine(),
            "compact": None if compaction is None else asdict(compaction),
            "timings": [asdict(timing) for timing in timings],
        }
        args.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return ExitCode.OK


def _sweep(options: suite.Options, args: argparse.Namespace) -> int:
    cores = options.cores
    sizes = [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]
    combinations = [(t, s, 1) for t in sizes for s in sizes if s <= t]
    combinations += [(t, t, cores // t) for t in sizes if 1 < cores // t <= args.max_actors]
    combinations.sort(key=lambda c: c != (cores, cores, 1))  # what the others are compared with
    lines = suite.sweep(options, combinations)
    print("\n" + report.ratio_table(lines))
    best = max(range(len(lines)), key=lambda i: lines[i].ratio.median)
    note = (
        f"the fastest of {len(lines)} settings on {cores} cores at {options.precisions[0]}: "
        f"{lines[best].ratio.median:.2f} x {lines[0].what}"
    )
    args.sweep.write_text(report.settings_yaml(*combinations[best], note), encoding="utf-8")
    print(f"\nwrote {args.sweep}: {note}")
    return ExitCode.OK


def _photos(folders: Sequence[Path] | None) -> list[Path]:
    found = mixed(folders or [Path("jobs/demo/photos")], _SUFFIXES)
    if not found:
        named = ", ".join(map(str, folders or ()))
        raise UsageError(f"no images ({', '.join(_SUFFIXES)}) in {named}; name a folder: --photos")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few images and rounds: a look, not a measurement")
    add("--only", action="append", choices=_PARTS, help="measure this part (may be repeated)")
    add("--precision", action="append", choices=("f32", "bf16", "int8"), help="default int8, bf16")
    add(
        "--photos",
        type=Path,
        action="append",
        metavar="DIR",
        help="images of several folders take turns (default jobs/demo/photos)",
    )
    add("--model", metavar="NAME|DIR", help="a bundle with f32 files, instead of the stand-in")
    add("--images", type=int, metavar="N", help="images a round (default 16)")
    add("--rounds", type=int, metavar="N", help="counted rounds (default 5)")
    add("--cores", type=int, default=max(1, int(available_cpus())), metavar="N")
    add("--streams", type=int, metavar="N", help="of the detector (default: one a core)")
    add("--work", type=Path, default=cache_folder() / "bench", metavar="DIR")
    add("--sweep", type=Path, metavar="YAML", help="sweep threads, streams, actors; write the best")
    add("--max-actors", type=int, default=1, metavar="N", help="detector actors (> 1 runs Ray)")
    add("--embedded", action="store_true", help="the embedded bundle against RapidOCR")
    add("--lines", action="store_true", help="a bundle of lines against programs of its weights")
    add("--rival", action="append", metavar="NAME", help="only this one; also bare, ray")
    add("--alphabet", metavar="NAME", help="of the bundle of lines: all, latin")
    add("--rapidocr-python", type=Path, metavar="PATH", help="interpreter that has rapidocr")
    add(
        "--rapidocr-accuracy",
        metavar="GT",
        help="score RapidOCR on --photos as textspot evaluate scores a table: folder, tar or zip",
    )
    add("--gt-size", type=size, metavar="WxH", help="image size the gt's coordinates belong to")
    add("--tables", metavar="DIR", help="look-ups on a made-up table, made there if there is none")
    add("--table-words", type=int, default=10_000_000, metavar="N")
    add("--table-images", type=int, default=1_000_000, metavar="N")
    add("--out", type=Path, metavar="JSON", help="write the figures")
    return parser
