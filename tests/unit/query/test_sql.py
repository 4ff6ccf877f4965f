from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word
from textspot_ray.cli import main
from textspot_ray.errors import ExitCode, TableError, UsageError, printable
from textspot_ray.query.output import OutputFormat, write_result
from textspot_ray.query.prompt import prompt
from textspot_ray.query.sql import SqlError, query_relation, run_query
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table(
        [Page("a.jpg", [word("exit"), word("open", 60)]), Page("b.jpg")],
        [Page("c.jpg", [word("exit", confidence=0.4)]), Page("d.jpg", error=ErrorKind.CORRUPT)],
    )


def rows(uri: str, sql: str, max_rows: int | None = None) -> list[dict[str, object]]:
    with open_views(uri) as tables:
        found: list[dict[str, object]] = run_query(tables, sql, max_rows).read_all().to_pylist()
        return found


def test_views_hold_what_was_committed(table: str) -> None:
    found = rows(table, "SELECT image_id, text FROM words ORDER BY image_id, word_index")
    assert [tuple(row.values()) for row in found] == [
        ("a.jpg", "exit"),
        ("a.jpg", "open"),
        ("c.jpg", "exit"),
    ]
    assert rows(table, "SELECT status FROM images ORDER BY image_id") == [
        {"status": "words"},
        {"status": "empty"},
        {"status": "words"},
        {"status": "failed"},
    ]
    assert rows(table, "FROM errors SELECT kind") == [{"kind": "corrupt"}]


def test_folders_named_like_columns_change_nothing(table: str, tmp_path: Path) -> None:
    """DuckDB takes KEY=VALUE in a path for a column, and lets it win over the file's own."""
    moved = tmp_path / "text=1" / "day=2026-11-28"
    moved.parent.mkdir()
    shutil.move(table, moved)
    found = rows(str(moved), "SELECT * FROM words")
    assert {row["text"] for row in found} == {"exit", "open"}
    assert "day" not in found[0]


def test_runs_and_shards_are_views_too(table: str) -> None:
    run = rows(table, "SELECT * FROM runs")[0]
    assert (run["run_id"], run["shards"], run["images"], run["words"], run["failed"]) == (
        "run-1",
        2,
        4,
        3,
        1,
    )
    assert len(rows(table, "SELECT * FROM shards WHERE node = 'n1'")) == 2


def test_uncommitted_files_are_not_seen(table: str) -> None:
    part = next(Path(table, "words").glob("*.parquet"))
    (part.parent / "000000-000009-00-0123456789ab.parquet").write_bytes(part.read_bytes())
    (part.parent / "000000-000010-00-0123456789ab.parquet").write_bytes(b"half a fi")
    assert rows(table, "SELECT count(*) AS n FROM words") == [{"n": 3}]


def test_an_empty_table_has_typed_views(make_table: MakeTable) -> None:
    uri = make_table()
    assert rows(uri, "SELECT * FROM words") == []
    kinds = {row["column_name"]: row["column_type"] for row in rows(uri, "DESCRIBE words")}
    assert (kinds["polygon"], kinds["word_index"]) == ("FLOAT[]", "INTEGER")
    assert rows(uri, "SELECT * FROM runs") == []


@pytest.mark.parametrize("name", ["it's [odd] *", "späße ünd 'x'"])
def test_odd_folder_names_are_taken_literally(make_table: MakeTable, name: str) -> None:
    uri = make_table([Page("a.jpg", [word("exit")])], name=name)
    assert rows(uri, "SELECT text FROM words") == [{"text": "exit"}]


def test_object_stores_are_read_through_fsspec(make_table: MakeTable) -> None:
    uri = make_table([Page("a.jpg", [word("exit")])], where="memory://insight-query/out")
    assert rows(uri, "SELECT text FROM words") == [{"text": "exit"}]
    with open_views(uri) as tables, pytest.raises(SqlError):
        run_query(tables, "COPY (SELECT 1) TO 'textspot://words/new.parquet'")


def test_relations_go_on_to_arrow_and_pandas(table: str) -> None:
    with open_views(table) as tables:
        words = query_relation(tables, "FROM words")
        assert words.filter("text = 'open'").to_arrow_table().num_rows == 1
        assert len(query_relation(tables, "FROM images").df()) == 4
        assert len(query_relation(tables, "FROM runs;").pl()) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW words",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO words SELECT * FROM words",
        "DELETE FROM words",
        "UPDATE words SET text = 'x'",
        "COPY words TO '{out}'",
        "COPY (SELECT 1) TO '{part}'",
        "EXPLAIN ANALYZE COPY words TO '{out}'",
        "EXPLAIN /* hidden */ ANALYZE COPY words TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS db",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET GLOBAL lock_configuration = false",
        "RESET enable_external_access",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "SELECT 1; DROP VIEW words",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM query('DROP VIEW words')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "",
        ";",
    ],
)
def test_nothing_but_reading_the_views(table: str, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    out = tmp_path / "written"
    part = next(Path(table, "words").glob("*.parquet"))
    before = part.read_bytes()
    filled = sql.format(out=out, secret=secret, folder=tmp_path, part=part)
    with open_views(table) as tables:
        with pytest.raises(SqlError, match=r"^SQL") as caught:
            run_query(tables, filled).read_all()
        assert "\n" not in str(caught.value)
        assert tables.rows("SELECT count(*) FROM words") == [(3,)]
    assert not out.exists() and part.read_bytes() == before


def test_python_variables_are_no_tables(table: str) -> None:
    secret = pq.read_table(next(Path(table, "words").glob("*.parquet")))
    assert secret.num_rows
    with open_views(table) as tables, pytest.raises(SqlError, match="secret"):
        run_query(tables, "SELECT * FROM secret")


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("selec 1", "line 1, column 1"),
        ("SELECT text,\n  'é', nope FROM words", "line 2, column 8"),
        ("SELECT * FROM wrods", "line 1, column 15"),
    ],
)
def test_mistakes_are_one_line_with_the_place(table: str, sql: str, place: str) -> None:
    with open_views(table) as tables, pytest.raises(SqlError, match=place) as caught:
        run_query(tables, sql)
    assert "\n" not in str(caught.value)
    assert "LINE" not in str(caught.value) and "^" not in str(caught.value)


def test_bytes_that_are_no_utf8_are_one_line_with_the_place(table: str) -> None:
    sql = b"SELECT 'caf\xe9'".decode("utf-8", "surrogateescape")  # as Python gives it in argv
    with open_views(table) as tables, pytest.raises(SqlError, match="line 1, column 12: invalid"):
        run_query(tables, sql)


def test_a_limit_may_be_any_number(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    many = "9" * 30
    assert run_command("query", [table, "FROM words", "--limit", many, "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_faults_while_rows_are_made_are_one_line_too(table: str) -> None:
    sql = "SELECT regexp_matches(text, repeat('(', len(text)::BIGINT)) FROM words"
    with open_views(table) as tables, pytest.raises(SqlError):
        run_query(tables, sql).read_all()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM words -- all of them",
        "WITH w AS (SELECT * FROM words) SELECT * FROM w;",
        "FROM words",
        "VALUES (1), (2), (3)",
        "SHOW TABLES",
        "SUMMARIZE words",
        "EXPLAIN SELECT * FROM words",
        "explain analyze SELECT * FROM words",
        "DESCRIBE words",
    ],
)
def test_reading_statements_work_limited_or_not(table: str, sql: str) -> None:
    assert rows(table, sql) and rows(table, sql, max_rows=2)


def test_limit_stops_the_rows(table: str) -> None:
    assert len(rows(table, "FROM words -- ;", max_rows=2)) == 2


def test_not_a_table_and_a_newer_one_are_refused(table: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="not a textspot table"):
        open_views(str(tmp_path / "nothing"))
    (tmp_path / "other").mkdir()
    with pytest.raises(TableError, match="not a textspot table"):
        open_views(str(tmp_path / "other"))
    state = Path(table, "_textspot", "table.json")
    data = json.loads(state.read_text())
    state.write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(TableError, match="upgrade"):
        open_views(table)


def test_a_damaged_part_is_named(table: str) -> None:
    for part in Path(table, "words").glob("*.parquet"):
        part.write_bytes(b"PAR1 no more")
    with pytest.raises(TableError, match="textspot verify"):
        open_views(table)


def write(table: str, sql: str, format: OutputFormat, out: Path) -> int:
    with open_views(table) as tables:
        return write_result(run_query(tables, sql), format, str(out))


def test_every_format_is_written(table: str, tmp_path: Path) -> None:
    sql = "SELECT text, polygon, 'a,\"b\"' AS odd, 'nan'::FLOAT AS nan FROM words ORDER BY text"
    out = tmp_path / "result"
    assert write(table, sql, OutputFormat.CSV, out) == 3
    assert out.read_text().splitlines()[1].startswith('exit,"[10.0, 10.0, 50.0')
    assert write(table, sql, OutputFormat.JSON, out) == 3
    first = json.loads(out.read_text().splitlines()[0])
    assert (first["text"], len(first["polygon"]), first["nan"]) == ("exit", 8, None)
    assert write(table, sql, OutputFormat.PARQUET, out) == 3
    assert pq.read_table(out).num_rows == 3
    assert write(table, sql, OutputFormat.TABLE, out) == 3
    lines = out.read_text().splitlines()
    assert lines[0].split() == ["text", "polygon", "odd", "nan"] and len(lines) == 5


def test_output_that_cannot_be_written_is_one_line(table: str, tmp_path: Path) -> None:
    for format in OutputFormat:
        with pytest.raises(UsageError, match="cannot write"):
            write(table, "FROM words", format, tmp_path / "no" / "folder")


def test_terminals_are_not_steered_by_words() -> None:
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert printable("ümlaut 语") == "ümlaut 语"


def test_prompt_runs_statements_over_lines_and_survives_mistakes(
    table: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lines = iter(
        ["SELECT text", "FROM words;", "nonsense;", ".tables", ".limit 1", "FROM words;", ".quit"]
    )
    with open_views(table) as tables:
        prompt(tables, lambda _: next(lines))
    shown = capsys.readouterr().out
    assert "3 rows" in shown and "SQL, line 1, column 1" in shown
    assert "char_confidences float[]" in shown and "there may be more" in shown


def test_large_sorts_spill_outside_the_working_folder(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, spill = tmp_path / "work", tmp_path / "spill"
    work.mkdir()
    spill.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    with open_views(table, threads=1) as tables:
        used = tables.rows("SELECT value FROM duckdb_settings() WHERE name = 'temp_directory'")
        assert Path(used[0][0]).parent == spill
        with pytest.raises(SqlError):
            run_query(tables, "SET temp_directory = '/'")
    assert list(work.iterdir()) == [] and list(spill.iterdir()) == []


def test_opening_a_folded_table_does_not_import_pandas(table: str) -> None:
    """Importing it took three quarters of the time to the first answer."""
    assert open_ledger(open_store(table), create=False).fold(at_least=1)
    code = (
        "import sys\n"
        "from textspot_ray.cli import main\n"
        "main(['query', sys.argv[1], 'SELECT count(*) AS n FROM words', '--format', 'csv'])\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, table], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["n", "3", "False"]


def test_a_files_name_chooses_the_format(table: str, tmp_path: Path) -> None:
    sql = "SELECT text FROM words ORDER BY text"
    for name, check in (
        ("q.csv", lambda data: data.startswith(b"text\n")),
        ("q.jsonl", lambda data: data.startswith(b'{"text": "')),
        ("q.parquet", lambda data: data[:4] == b"PAR1"),
        ("q.txt", lambda data: "─".encode() in data),
    ):
        assert run_command("query", [table, sql, "--out", str(tmp_path / name)]) == 0
        assert check((tmp_path / name).read_bytes()), name
    run_command("query", [table, sql, "--out", str(tmp_path / "x.csv"), "--format", "json"])
    assert (tmp_path / "x.csv").read_text().startswith('{"text"')
    for name in ("q.xlsx", "q.csv.gz"):
        with pytest.raises(UsageError, match=r"is not written; give \.csv"):
            run_command("query", [table, sql, "--out", str(tmp_path / name)])
        assert not (tmp_path / name).exists()


def test_results_go_to_any_fsspec_url(table: str) -> None:
    import fsspec

    run_command("query", [table, "SELECT count(*) AS n FROM words", "--out", "memory://q/n.csv"])
    assert fsspec.filesystem("memory").cat_file("/q/n.csv") == b"n\n3\n"


def test_plans_are_readable(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("query", [table, "EXPLAIN SELECT count(*) FROM words"])
    shown = capsys.readouterr().out
    assert "\\n" not in shown and shown.count("\n") > 5 and "READ_PARQUET" in shown


def test_a_pivot_works(table: str) -> None:
    found = rows(table, "PIVOT words ON text USING count(*) GROUP BY image_id")
    assert found and len(found[0]) > 2
    assert rows(table, "FROM (PIVOT words ON text USING count(*))", max_rows=1)


def test_every_view_is_shown_and_unknown_tables_name_ours(table: str) -> None:
    assert {"words", "images", "errors", "shards", "runs"} <= {
        row["name"] for row in rows(table, "SHOW TABLES")
    }
    with open_views(table) as tables:
        for sql, hint in (
            ("SELECT * FROM wrods", "did you mean words"),
            ("SELECT * FROM image", "did you mean images"),
            ("SELECT * FROM zzz", "there are words, images, errors, shards, runs"),
        ):
            with pytest.raises(SqlError, match=hint) as caught:
                run_query(tables, sql)
            assert "pg_" not in str(caught.value)


def test_damage_is_told_with_its_own_exit_code(
    table: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for part in Path(table, "words").glob("*.parquet"):
        data = bytearray(part.read_bytes())
        data[4:2000] = os.urandom(len(data[4:2000]))  # pages; the footer stays
        part.write_bytes(data)
    out = str(tmp_path / "x")
    for arguments in (
        ["query", table, "SELECT sum(len(text)), max(text) FROM words"],
        ["search", table, "exit"],
        ["stats", table],
        ["export", table, "-f", "txt", "-o", out],
    ):
        assert main(arguments) == ExitCode.ABORTED, arguments
        shown = capsys.readouterr().err
        assert "textspot verify" in shown and shown.count("\n") == 1, arguments


def test_links_and_pipes_stay_what_they_are(table: str, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("before")
    link.symlink_to(real)
    run_command("query", [table, "SELECT 1 AS n", "--out", str(link)])
    assert link.is_symlink() and real.read_text() == "n\n1\n"
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    run_command("query", [table, "SELECT 2 AS n", "--out", str(pipe)])
    assert reader.communicate(timeout=30)[0] == "n\n2\n"
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []
