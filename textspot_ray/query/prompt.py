"""The interactive prompt of ``textspot query``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from textspot_ray.errors import TextspotError
from textspot_ray.query.output import OutputFormat, write_result
from textspot_ray.query.sql import run_query
from textspot_ray.query.views import TableViews

_HELP = """\
End a statement with ; and press Enter. Views: words, images, errors, shards, runs.
.tables          columns of the views        .limit N   rows shown (0: all)
.format NAME     table, csv or json          .help      this text        .quit"""


def prompt(tables: TableViews, read: Callable[[str], str] = input, max_rows: int = 40) -> None:
    """Read statements until the end of input; mistakes are shown and the prompt goes on.

    Args:
        tables: The opened table.
        read: Gives a line, after what it is given.
        max_rows: Rows shown of a result.
    """
    _use_history()
    print(f"{tables.uri}: end statements with ;  (.help for commands)")
    session = _Session(tables, max_rows)
    pending = ""
    while True:
        try:
            line = read("textspot> " if not pending else "     ...> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            pending = ""
            continue
        if not pending and line.strip().startswith("."):
            if session.command(line.strip()):
                return
            continue
        pending = f"{pending}\n{line}" if pending else line
        if pending.strip().endswith(";"):
            session.run(pending)
            pending = ""
        elif not pending.strip():
            pending = ""


class _Session:
    def __init__(self, tables: TableViews, max_rows: int) -> None:
        self._tables = tables
        self._limit: int | None = max_rows
        self._format = OutputFormat.TABLE

    def run(self, sql: str) -> None:
        try:
            result = run_query(self._tables, sql, self._limit)
            count = write_result(result, self._format, None)
        except TextspotError as exc:
            print(exc)
        except KeyboardInterrupt:
            print("interrupted")
        else:
            more = " (there may be more: .limit 0)" if count == self._limit else ""
            print(f"{count} row{'s' * (count != 1)}{more}")

    def command(self, line: str) -> bool:
        """Whether to quit."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name in (".quit", ".exit", ".q"):
            return True
        if name == ".tables":
            self._columns()
        elif name == ".limit" and argument.isdigit():
            self._limit = int(argument) or None
        elif name == ".format" and argument in ("table", "csv", "json"):
            self._format = OutputFormat(argument)
        else:
            print(_HELP)
        return False

    def _columns(self) -> None:
        self._tables.add_shards()
        for view in ("words", "images", "errors", "shards", "runs"):
            columns = self._tables.rows(f"DESCRIBE {view}")
            print(f"{view}: " + ", ".join(f"{row[0]} {row[1].lower()}" for row in columns))


def _use_history() -> None:
    with contextlib.suppress(ImportError, OSError):
        import atexit
        import readline

        from platformdirs import user_state_path

        path: Path = user_state_path("textspot-ray", ensure_exists=True) / "query_history"
        if path.exists():
            readline.read_history_file(path)
        readline.set_history_length(1000)
        atexit.register(_save_history, str(path))


def _save_history(path: str) -> None:
    import readline

    with contextlib.suppress(OSError):
        readline.write_history_file(path)
