"""Messages of errors: one line that fits a terminal."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "textspot_ray"
LONGEST = 160
NAME = 12  # characters that a value within the text may take, on average


def length(text: ast.expr) -> int:
    """Characters of a literal; 0 of what is put together elsewhere."""
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return len(text.value)
    if isinstance(text, ast.JoinedStr):
        return sum(length(part) or NAME for part in text.values)
    return 0


def test_messages_fit_a_line() -> None:
    long, seen = [], 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                n = length(node.exc.args[0])
                seen += n > 0
                if n > LONGEST:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {n}")
    assert seen > 300
    assert long == []
