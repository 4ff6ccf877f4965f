"""Common questions to tables, each as one SQL statement: ``textspot query --cookbook``.

They are in ``cookbook.sql``: the question as a comment, perhaps a second comment with a hint or the
next command, and the statement; an empty line separates entries.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from textspot_ray.query.output import write_table
from textspot_ray.query.sql import run_query
from textspot_ray.query.views import TableViews

_SHOWN_ROWS = 8
_COMMENT = "-- "


@dataclass(frozen=True, slots=True)
class CookbookEntry:
    """A question, its statement, and perhaps the next step.

    Attributes:
        question: In plain words.
        sql: One statement over the views.
        note: A hint, or the next command; may be empty.
    """

    question: str
    sql: str
    note: str = ""


def plain_cookbook() -> str:
    """All questions with their statements, to read in a terminal."""
    return resources.files(__package__).joinpath("cookbook.sql").read_text(encoding="utf-8")


@cache
def recipes() -> tuple[CookbookEntry, ...]:
    """The questions in their order."""
    return tuple(_entry(block.splitlines()) for block in plain_cookbook().split("\n\n"))


def _entry(lines: list[str]) -> CookbookEntry:
    question, *notes = (line.removeprefix(_COMMENT) for line in lines if line.startswith(_COMMENT))
    sql = "\n".join(line for line in lines if not line.startswith(_COMMENT))
    return CookbookEntry(question, sql.removesuffix(";"), " ".join(notes))


def answered_cookbook(tables: TableViews) -> Iterator[str]:
    """The same as Markdown, with a table's answer to each.

    Raises:
        SqlError: A statement fails, as the table is damaged.
    """
    yield (
        "# Questions and their statements\n\n"
        f"Written by `textspot query DIR --cookbook`; the first {_SHOWN_ROWS} rows of each answer "
        "are shown.\n"
    )
    for recipe in recipes():
        answer = io.StringIO()
        write_table(run_query(tables, recipe.sql, _SHOWN_ROWS), answer)
        note = f"\n{recipe.note}\n" if recipe.note else ""
        yield (
            f"\n## {recipe.question}\n\n```sql\n{recipe.sql}\n```\n\n"
            f"```\n{answer.getvalue()}```\n{note}"
        )
