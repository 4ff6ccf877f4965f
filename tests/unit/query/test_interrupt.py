"""Ctrl-C while DuckDB works, and statements that would write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.insight_tables import MakeTable, Page, word
from textspot_ray.errors import ExitCode
from textspot_ray.query.sql import SqlError, run_query
from textspot_ray.query.views import open_views

ENDLESS = "SELECT sum(hash(a.range, b.range)) AS n FROM range(9000000) a, range(900000) b"


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table([Page("a.jpg", [word("fire"), word("exit", 60)])])


def test_ctrl_c_stops_a_statement_at_once(table: str) -> None:
    code = (
        "import sys, textspot_ray.query.output, textspot_ray.query.sql\n"
        "from textspot_ray.cli import main\n"
        "print('ready', flush=True)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code, "query", table, ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=dict(os.environ),
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    time.sleep(1.5)  # until the statement runs
    before = time.monotonic()
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == ExitCode.INTERRUPTED, said
    assert said.strip() == "textspot: interrupted"
    assert time.monotonic() - before < 15  # seconds, on a machine that does other work as well


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (DELETE FROM shards RETURNING plan) SELECT * FROM x",
        "WITH x AS (INSERT INTO shards SELECT * FROM shards RETURNING 1) SELECT * FROM x",
        "WITH x AS (UPDATE shards SET plan = 9 RETURNING plan) SELECT * FROM x",
    ],
)
def test_statements_that_look_like_reading_cannot_write(table: str, sql: str) -> None:
    with open_views(table) as tables:
        before = run_query(tables, "FROM shards").read_all()
        with pytest.raises(SqlError):
            run_query(tables, sql).read_all()
        assert run_query(tables, "FROM shards").read_all() == before


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (PIVOT words ON text USING count(*)) TO '{part}'",
        "/* x */ COPY (PIVOT words ON text USING count(*)) TO '{part}'",
        "CREATE TABLE t AS (PIVOT words ON text USING count(*))",
        "EXPLAIN ANALYZE COPY (PIVOT words ON text USING count(*)) TO '{part}'",
    ],
)
def test_a_pivot_hides_nothing_that_writes(table: str, sql: str) -> None:
    (part,) = Path(table, "words").glob("*.parquet")
    whole = part.read_bytes()
    with open_views(table) as tables, pytest.raises(SqlError, match=r"read-only|EXPLAIN"):
        run_query(tables, sql.format(part=part)).read_all()
    assert part.read_bytes() == whole
