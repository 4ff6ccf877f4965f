"""Plots as inline SVG: bars and lines, no library, readable in light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its label on the axis, its value, and what hovering tells."""

    label: str
    value: float
    hint: str = ""


def bar_chart(title: str, bars: Sequence[Bar], x_title: str = "", y_title: str = "") -> str:
    """Vertical bars from zero; with many bars only some labels are shown."""
    top = nice_top(max((bar.value for bar in bars), default=0))
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(bars))
    step = max(1, math.ceil(len(bars) / 10))
    parts = [_axes(top)]
    for n, bar in enumerate(bars):
        height = (_HEIGHT - _TOP - _BOTTOM) * bar.value / top
        x, y = _LEFT + n * width, _HEIGHT - _BOTTOM - height
        hint = escape(bar.hint or f"{bar.label}: {number(bar.value)}")
        parts.append(
            f'<rect class="bar" x="{x + width * 0.08:.1f}" y="{y:.1f}" width="{width * 0.84:.1f}"'
            f' height="{height:.1f}"><title>{hint}</title></rect>'
        )
        if n % step == 0:
            parts.append(
                f'<text class="tick" x="{x + width / 2:.1f}" y="{_HEIGHT - _BOTTOM + 14}"'
                f' text-anchor="middle">{escape(bar.label)}</text>'
            )
    return _figure(title, "".join(parts), x_title, y_title)


def line_chart(
    title: str, points: Sequence[tuple[float, float]], x_title: str = "", y_title: str = ""
) -> str:
    """One line over x from the first to the last point; y from zero."""
    top = nice_top(max((y for _, y in points), default=0))
    low = min((x for x, _ in points), default=0)
    high = max((x for x, _ in points), default=1)
    span = (high - low) or 1.0
    place = [
        (
            _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - low) / span,
            _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y / top,
        )
        for x, y in points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    parts = [_axes(top), f'<polyline class="line" points="{path}"/>']
    for (x, y), (px, py) in zip(points, place, strict=True):
        hint = escape(f"{number(x)}: {number(y)}")
        parts.append(
            f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="2.5">'
            f"<title>{hint}</title></circle>"
        )
    for x, anchor, at in ((low, "start", _LEFT), (high, "end", _WIDTH - _RIGHT)):
        parts.append(
            f'<text class="tick" x="{at}" y="{_HEIGHT - _BOTTOM + 14}"'
            f' text-anchor="{anchor}">{number(x)}</text>'
        )
    return _figure(title, "".join(parts), x_title, y_title)


def nice_top(value: float) -> float:
    """The next 1, 2, 2.5, 4, 5 or 8 times a power of ten at or above a value."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(f * power for f in (1, 2, 2.5, 4, 5, 8, 10) if value <= f * power * (1 + 1e-9))


def number(value: float) -> str:
    """A number short enough for an axis."""
    if value == 0:
        return "0"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _axes(top: float) -> str:
    parts = []
    for n in range(5):
        value = top * n / 4
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * n / 4
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{number(value)}</text>"
        )
    return "".join(parts)


def _figure(title: str, body: str, x_title: str, y_title: str) -> str:
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}'
        f'<text class="tick" x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
        f'<text class="tick" x="12" y="{_HEIGHT / 2 - 10}" text-anchor="middle"'
        f' transform="rotate(-90 12 {_HEIGHT / 2 - 10})">{escape(y_title)}</text>'
        "</svg></figure>"
    )
