"""Plots as geometry: where bars, points and ticks of a small chart lie.

What is drawn from it is one template of the pages, ``chart.svg``; this module knows no markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 42
_STEPS = {2.0: 4, 4.0: 4, 8.0: 4}  # of the y axis, by the top's first digits; else 5
_LABEL_PX = 7.2  # of a character of a tick's label, for leaving out labels that would touch
_SUMMARISED = 5  # values in a chart's summary


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its label on the axis, its value, and its tooltip."""

    label: str
    value: float
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis and where it stands, in pixels of the drawing."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Rect:
    """A bar as it is drawn, in pixels of the drawing."""

    x: float
    y: float
    width: float
    height: float
    hint: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a line, in pixels of the drawing."""

    x: float
    y: float
    hint: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `WIDTH` by `HEIGHT` pixels.

    Attributes:
        title: What it shows.
        x_title: Name of the x axis.
        y_title: Name of the y axis.
        x_ticks: Labels below the axis.
        y_ticks: Labels left of the axis, with a line across each.
        bars: Bars, if it is a bar chart.
        dots: The line's points, if it is a line chart.
        summary: What it shows, for screen readers.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Rect, ...] = ()
    dots: tuple[Dot, ...] = ()
    summary: str = ""

    @property
    def left(self) -> float:
        """Where the plot begins, right of the labels."""
        return _LEFT

    @property
    def right(self) -> float:
        """Where the plot ends."""
        return WIDTH - _RIGHT

    @property
    def floor(self) -> float:
        """The y of the value 0."""
        return HEIGHT - _BOTTOM


def bar_chart(title: str, bars: Sequence[Bar], x_title: str = "", y_title: str = "") -> Chart:
    """Vertical bars from zero; labels that would touch are left out.

    Args:
        title: What it shows.
        bars: From left to right.
        x_title: Name of the x axis.
        y_title: Name of the y axis.
    """
    top = nice_top(max((bar.value for bar in bars), default=0))
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(bars))
    longest = max((len(bar.label) for bar in bars), default=1)
    step = max(1, math.ceil((longest + 1) * _LABEL_PX / width))
    rects, ticks = [], []
    for n, bar in enumerate(bars):
        height = (HEIGHT - _TOP - _BOTTOM) * bar.value / top
        x, y = _LEFT + n * width, HEIGHT - _BOTTOM - height
        hint = bar.hint or f"{bar.label}: {short_number(bar.value)}"
        rects.append(Rect(x + width * 0.08, y, width * 0.84, height, hint))
        if n % step == 0:
            ticks.append(Tick(x + width / 2, bar.label))
    highest = sorted((bar for bar in bars if bar.value), key=lambda bar: -bar.value)[:_SUMMARISED]
    summary = "; ".join(bar.hint or f"{bar.label}: {short_number(bar.value)}" for bar in highest)
    return Chart(
        title,
        x_title,
        y_title,
        tuple(ticks),
        _y_ticks(top),
        bars=tuple(rects),
        summary=f"highest bars {summary}" if summary else "no values",
    )


def line_chart(
    title: str, points: Sequence[tuple[float, float]], x_title: str = "", y_title: str = ""
) -> Chart:
    """One line over x from the first to the last point; y from zero.

    Args:
        title: What it shows.
        points: x and y, by x.
        x_title: Name of the x axis.
        y_title: Name of the y axis.
    """
    top = nice_top(max((y for _, y in points), default=0))
    low = min((x for x, _ in points), default=0)
    high = max((x for x, _ in points), default=1)
    span = (high - low) or 1.0
    dots = tuple(
        Dot(
            _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - low) / span,
            HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * y / top,
            f"{short_number(x)}: {short_number(y)}",
        )
        for x, y in points
    )
    summary = "no values"
    if points:
        mean, most = sum(y for _, y in points) / len(points), max(y for _, y in points)
        summary = f"{short_number(mean)} {y_title} on average, at most {short_number(most)}"
    ticks = (
        Tick(_LEFT, f"{low:.2g}" if abs(low) < 100 else short_number(low), "start"),
        Tick(WIDTH - _RIGHT, short_number(high), "end"),
    )
    return Chart(title, x_title, y_title, ticks, _y_ticks(top), dots=dots, summary=summary)


def nice_top(value: float) -> float:
    """The smallest 1, 2, 2.5, 4, 5 or 8 times a power of ten at or above a value."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(f * power for f in (1, 2, 2.5, 4, 5, 8, 10) if value <= f * power * (1 + 1e-9))


def short_number(value: float) -> str:
    """A number short enough for an axis."""
    if value == 0:
        return "0"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _y_ticks(top: float) -> tuple[Tick, ...]:
    digits = round(top / 10.0 ** math.floor(math.log10(top)), 3)
    steps = int(top) if top in (1, 2) else _STEPS.get(digits, 5)  # no half images
    return tuple(
        Tick(
            HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * n / steps,
            short_number(top * n / steps),
            "end",
        )
        for n in range(steps + 1)
    )
