"""The log of a training: a CSV row every few minutes, and the curve drawn from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.training.loop.checkpoints import replace_file


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of a curve.

    Attributes:
        x: Column along the bottom.
        columns: Columns drawn; rows without a value are passed over.
        labels: Of the two axes.
        limits: Of the upright axis, or None to fit.
        dashed: Columns drawn as dashes.
    """

    x: str
    columns: tuple[str, ...]
    labels: tuple[str, str]
    limits: tuple[float, float] | None = None
    dashed: tuple[str, ...] = ()


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row, with new columns where it has some."""
    rows: list[Mapping[str, object]] = [*read_rows(path), row] if path.exists() else [row]
    names = list(dict.fromkeys(name for r in rows for name in r))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, buffer.getvalue().encode())


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows by column; ``""`` where a row has no value."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def draw_curve(log: Path, image: Path, panels: Sequence[Panel]) -> None:
    """Plot columns of a log into a PNG, one panel beside the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = read_rows(log)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * (1 + len(panels)), 4.5))
    plots: list[Any] = [axes] if len(panels) == 1 else list(axes)
    for plot, panel in zip(plots, panels, strict=True):
        for name in (*panel.columns, *panel.dashed):
            points = [(float(r[panel.x]), float(r[name])) for r in rows if r.get(name)]
            style = "k--" if name in panel.dashed else "-"
            plot.plot([x for x, _ in points], [y for _, y in points], style, label=name)
        plot.set(xlabel=panel.labels[0], ylabel=panel.labels[1], ylim=panel.limits)
        plot.grid(alpha=0.3)
        if len(panel.columns) + len(panel.dashed) > 1:
            plot.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(image, dpi=80)
    plt.close(figure)
