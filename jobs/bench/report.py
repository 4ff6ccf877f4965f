"""How measurements are shown: a table of ratios with their bars, a table of stages, settings."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import openvino as ov
import yaml

from jobs.bench.suite import Line, Stages

_ORDER = ("read", "decode", "detect", "encode", "step", "recognise", "write", "wait", "wall")


def machine() -> str:
    """What the figures were measured on."""
    import psutil

    load = ", ".join(f"{v:.1f}" for v in psutil.getloadavg())
    return (
        f"{_cpu()}, {psutil.cpu_count()} cores, load {load}; Python {platform.python_version()}, "
        f"OpenVINO {ov.__version__.split('-')[0]}"
    )


def ratio_table(lines: Sequence[Line]) -> str:
    """Ratios as Markdown: median, quartiles, by CPU time, bar and goal."""
    rows = [
        "| measured | ratio | quartiles | by CPU time | bar | goal | slow | fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        r = line.ratio
        bar, goal = ("-" if v is None else f"{v:g}" for v in (line.bar, line.goal))
        verdict = ""
        if line.bar is not None:
            verdict = " ✓" if r.median >= line.bar else " ✗"
        rows.append(
            f"| {line.what} | {r.median:.2f}{verdict} | {r.low:.2f}–{r.high:.2f} | {r.cpu:.2f} "
            f"| {bar} | {goal} | {_shown(line.slow.ms)} ms/{line.unit} "
            f"| {_shown(line.fast.ms)} ms/{line.unit} |"
        )
    return "\n".join(rows)


def stage_table(tables: Sequence[Stages]) -> str:
    """Milliseconds an image by stage as Markdown."""
    names = [name for name in _ORDER if any(name in table.ms for table in tables)]
    rows = [
        "| pipeline, ms an image | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for table in tables:
        cells = (_shown(table.ms[name]) if name in table.ms else "-" for name in names)
        rows.append(f"| {table.title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def settings_yaml(threads: int, streams: int, actors: int, note: str) -> str:
    """The swept settings in the form that ``--config`` takes."""
    engine = {
        "threads": threads,
        "threads_per_inference": max(1, threads // streams),
        "detectors_per_slot": actors,
    }
    return f"# {note}\n" + yaml.safe_dump({"engine": engine}, sort_keys=False)


def _shown(ms: float) -> str:
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
