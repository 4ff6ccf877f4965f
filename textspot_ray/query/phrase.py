"""When two words are next to each other on one line, as SQL over their boxes and angles."""

from __future__ import annotations

from collections.abc import Sequence

from textspot_ray.reading_order import Line

_DEGENERATE = 0.3  # |cos 2a| below which width and height cannot be told from the upright box

_LETTER_WIDTH = 0.55  # of the height; the usual mean of Latin faces


def phrase_sql(tables: Sequence[str], line: Line) -> str:
    """Join tables of (image_id, w, cost, conf), one a term, into chains of adjacent words.

    ``w`` is a struct with i, text, conf, x0, y0, x1, y1 and angle.
    """
    sources = [f"({_with_geometry(table)}) a{n}" for n, table in enumerate(tables)]
    joins = [
        f"JOIN {sources[n]} ON a{n}.image_id = a0.image_id AND {_next(n - 1, n, line)}"
        for n in range(1, len(tables))
    ]
    columns = ", ".join(f"a{n}.w" for n in range(len(tables)))
    cost = " + ".join(f"a{n}.cost" for n in range(len(tables)))
    conf = " * ".join(f"a{n}.conf" for n in range(len(tables)))
    return (
        f"SELECT a0.image_id, [{columns}] AS ws, {cost} AS cost, {conf} AS conf "
        f"FROM {sources[0]} {' '.join(joins)}"
    )


def _with_geometry(table: str) -> str:
    """Centre, direction, and the width and height along and across the text."""
    box_w, box_h = "(w.x1 - w.x0)", "(w.y1 - w.y0)"
    c, s = "abs(cos(radians(w.angle)))", "abs(sin(radians(w.angle)))"
    det = f"({c} * {c} - {s} * {s})"
    # an upright box around a w x h word turned by a is (w c + h s) x (w s + h c); solved for w, h
    # near 45 degrees both equations say the same, w + h; then the number of letters shares it out
    both = f"({box_w} + {box_h}) / ({c} + {s})"
    letters = f"({_LETTER_WIDTH} * len(w.text))"
    height = (
        f"CASE WHEN abs({det}) < {_DEGENERATE} THEN {both} / (1 + {letters}) "
        f"ELSE greatest(({box_h} * {c} - {box_w} * {s}) / {det}, "
        f"0.1 * least({box_w}, {box_h}), 1) END"
    )
    width = (
        f"CASE WHEN abs({det}) < {_DEGENERATE} THEN {both} * {letters} / (1 + {letters}) "
        f"ELSE greatest(({box_w} * {c} - {box_h} * {s}) / {det}, 1) END"
    )
    return (
        "SELECT image_id, w, cost, conf, (w.x0 + w.x1) / 2 AS x, (w.y0 + w.y1) / 2 AS y,"
        f" cos(radians(w.angle)) AS ux, sin(radians(w.angle)) AS uy,"
        f" {height} AS h, {width} AS l FROM {table}"
    )


def _next(n: int, m: int, line: Line) -> str:
    """That word ``m`` follows word ``n``; distances are taken along word ``n``'s direction."""
    a, b = f"a{n}", f"a{m}"
    along = f"(({b}.x - {a}.x) * {a}.ux + ({b}.y - {a}.y) * {a}.uy)"
    across = f"(({b}.y - {a}.y) * {a}.ux - ({b}.x - {a}.x) * {a}.uy)"
    gap = f"({along} - ({a}.l + {b}.l) / 2)"
    height = f"(({a}.h + {b}.h) / 2)"
    return (
        f"{b}.w.i <> {a}.w.i AND {along} > 0"
        f" AND {gap} BETWEEN -0.75 * {height} AND {line.max_gap} * {height}"
        f" AND abs(degrees(atan2({across}, {along}))) <= {line.max_slope_deg}"
        f" AND greatest({a}.h, {b}.h) <= {line.max_height_ratio} * least({a}.h, {b}.h)"
    )
