"""A run and a submission with 40 secrets in their options: none of them is written or printed."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.provider_options import MARK, marked_options
from tests.support.scripted import (
    FileReader,
    ScriptedModels,
    list_folder,
    plain_scripts,
    scripted_config,
    scripted_parts,
    write_images,
)
from textspot_ray.cli import main
from textspot_ray.commands.summary import print_report
from textspot_ray.commands.table_options import OPTIONS_VARIABLE
from textspot_ray.config import RunConfig, dump_config, redactor_of
from textspot_ray.deploy.kubernetes import KubeOptions, render_job
from textspot_ray.engine.components import Components
from textspot_ray.engine.progress import console
from textspot_ray.engine.run import retry, run
from textspot_ray.engine.slot.events import set_up_logging
from textspot_ray.errors import StorageError, TextspotError, UsageError
from textspot_ray.records import Encoded, ErrorKind, ImageError, Item, Skipped, Stage
from textspot_ray.tables.open import open_tables

OPTIONS, MARKS = marked_options()
LEAK = f"403 for {' '.join(MARKS)} at https://me:{MARK}@h/x?sig={MARK}"


class LeakyReader(FileReader):
    """Says in an error all that its driver was opened with."""

    def read(self, items: Iterable[Item]) -> Iterator[Encoded]:
        for number, encoded in enumerate(super().read(items)):
            if number % 3:
                yield encoded
            else:
                error = ImageError(Stage.READ, ErrorKind.DENIED, LEAK)
                yield Encoded(encoded.item, None, error)


def leaky_listing(folder: Path) -> Iterator[Item | Skipped]:
    for number, item in enumerate(list_folder(folder)):
        error = ImageError(Stage.LIST, ErrorKind.BROKEN_ARCHIVE, LEAK) if number == 1 else None
        yield dataclasses.replace(item, error=error)


def secret_config(out: Path, **engine: object) -> RunConfig:
    config = scripted_config(out, status_s=0.2, **engine)
    return dataclasses.replace(
        config,
        source=dataclasses.replace(config.source, storage_options=OPTIONS),
        output=dataclasses.replace(config.output, storage_options=OPTIONS),
    )


def leaky_parts(folder: Path) -> Components:
    parts = scripted_parts(folder)
    recipe = dataclasses.replace(parts.recipe, make_reader=LeakyReader)
    return dataclasses.replace(parts, recipe=recipe, listing=lambda: leaky_listing(folder))


def files_that_tell(folder: Path) -> list[str]:
    """Files with a mark in their bytes, or in what Parquet and zip have packed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if tells(path.read_bytes())]


def tells(data: bytes) -> bool:
    """Whether a mark is in a file: rows, statistics and metadata of a table, members of a zip."""
    import pyarrow.parquet as pq

    if MARK.encode() in data:
        return True
    if data.startswith(b"PAR1"):
        table = pq.ParquetFile(io.BytesIO(data))
        schema = table.schema_arrow  # base64 in the file
        seen = [table.read().to_pylist(), table.metadata.to_dict(), table.metadata.metadata]
        return MARK in str([*seen, schema.metadata, *(field.metadata for field in schema)])
    if data.startswith(b"PK\3\4"):
        packed = zipfile.ZipFile(io.BytesIO(data))
        return any(MARK in name or tells(packed.read(name)) for name in packed.namelist())
    return False


def test_the_search_finds_marks_wherever_they_are(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = {
        "row": pa.table({"a": [f"x{MARK}"] * 99}),
        "field": pa.table([[1]], pa.schema([pa.field("a", pa.int64(), metadata={"k": MARK})])),
        "schema": pa.table({"a": [1]}).replace_schema_metadata({"k": MARK}),
        "none": pa.table({"a": ["x"]}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / name, compression="zstd")
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(tmp_path / "row", "a")
    assert sorted(files_that_tell(tmp_path)) == ["field", "row", "schema", "zip"]


@pytest.fixture
def log_to_stderr():
    """A command's own logging, for the length of a test."""
    root = logging.getLogger()
    before = root.handlers[:]

    def set_up(config: RunConfig) -> None:
        root.handlers[:] = []
        set_up_logging(config.engine.log_format, redactor_of(config))

    yield set_up
    root.handlers[:] = before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], log_format: str, log_to_stderr
) -> None:
    log_to_stderr(secret_config(tmp_path, log_format=log_format))
    log = logging.getLogger("textspot_ray.test")
    log.warning("driver said: %s", LEAK)
    try:
        raise StorageError(LEAK)
    except StorageError:
        log.warning("slot 1: %s", LEAK, exc_info=True, extra={"note": LEAK, "image": LEAK})
    shown = capfd.readouterr().err
    assert "driver said: 403" in shown and "StorageError" in shown
    assert MARK not in shown


def test_nothing_written_or_printed_by_a_run_and_a_retry(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "in", plain_scripts(12))
    config = secret_config(tmp_path / "out", progress_s=0.1)
    print(dump_config(config))
    report = run(config, parts=leaky_parts(folder), on_progress=console(0.1))
    print_report(report)
    retry(config, kinds=frozenset(ErrorKind), parts=leaky_parts(folder))
    shown = capfd.readouterr()
    assert "failures 6 denied" in shown.out
    assert MARK not in shown.out + shown.err
    messages = open_tables(str(tmp_path / "out")).read("errors").column("message").to_pylist()
    assert any(message.startswith("403 for ***") for message in messages)
    assert files_that_tell(tmp_path / "out") == []


def test_nor_by_the_commands_that_read_its_tables(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "in", plain_scripts(12))
    for name in ("a", "b"):
        out = tmp_path / name
        run(secret_config(out, progress_s=0.1), parts=leaky_parts(folder))
    capfd.readouterr()
    a, b, made = str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "made"
    made.mkdir()
    commands = [
        ["status", a], ["errors", a], ["stats", a], ["verify", a], ["query", a, "FROM errors"],
        ["diff", a, b], ["diff", a, b, "--html", str(made / "diff.html")],
        ["export", a, "--format", "jsonl", "--out", str(made / "x.jsonl")],
        ["export", a, "--format", "alto", "--out", str(made / "x.zip")],
        ["merge", a, b, "--out", str(tmp_path / "merged")], ["compact", a], ["clean", a],
    ]  # fmt: skip
    codes = [main(command) for command in commands]
    shown = capfd.readouterr()
    assert MARK not in shown.out + shown.err
    assert "403 for ***" in shown.out
    told = [" ".join(c) for c, code in zip(commands, codes, strict=True) if code not in (0, 3)]
    assert not told, shown.err
    assert files_that_tell(tmp_path) == []


@pytest.mark.parametrize("where", ["listing", "model"])
def test_nor_by_a_run_that_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    folder = write_images(tmp_path / "in", plain_scripts(3))
    parts = scripted_parts(folder, ScriptedModels(refuse=LEAK if where == "model" else ""))
    if where == "listing":

        def fail() -> Iterator[Item]:
            yield from list_folder(folder)
            raise StorageError(LEAK)

        parts = dataclasses.replace(parts, listing=fail)
    with pytest.raises(TextspotError, match=r"403 for \*\*\*") as caught:
        run(secret_config(tmp_path / "out"), parts=parts)
    shown = capfd.readouterr()
    assert MARK not in str(caught.value) + shown.out + shown.err
    assert files_that_tell(tmp_path / "out") == []
    (record,) = (tmp_path / "out" / "_textspot" / "runs").iterdir()
    assert "403 for ***" in json.loads(record.read_text())["error"]


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif MARK in str(value):
        yield path


@pytest.mark.parametrize("path", list(leaves(OPTIONS)), ids=".".join)
def test_each_of_them_is_refused_by_submit(path: tuple[str, ...]) -> None:
    value: object = OPTIONS
    for key in path:
        value = value[key]
    for key in reversed(path):
        value = {key: value}
    config = scripted_config(Path("x"))
    run_config = dataclasses.replace(
        config,
        source=dataclasses.replace(config.source, uris=("s3://p/",), storage_options=value),
        output=dataclasses.replace(config.output, uri="s3://t/"),
    )
    with pytest.raises(UsageError, match=rf"source\.storage_options\.{path[0]}") as caught:
        render_job(run_config, KubeOptions())
    assert MARK not in str(caught.value)
    assert OPTIONS_VARIABLE in str(caught.value)


def test_options_come_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(f"s3: {{key: {MARK}, anon: true}}\n")
    submit = ["submit", "s3://p/", "--out", "s3://t/", "--k8s"]
    assert main([*submit, "--storage-options", f"@{file}"]) == 2
    assert "source.storage_options.s3.key may be a secret" in capsys.readouterr().err
    # what is in this machine's environment stays here
    monkeypatch.setenv(OPTIONS_VARIABLE, json.dumps({"s3": {"key": MARK}}))
    assert main(submit) == 0
    assert MARK not in capsys.readouterr().out
    # a table that is not there: the options were read, and an error does not repeat them
    assert main(["status", str(tmp_path / "none")]) == 2
    monkeypatch.setenv(OPTIONS_VARIABLE, f"AccountKey={MARK}")
    assert main(["status", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert f"{OPTIONS_VARIABLE} takes" in error and MARK not in error
    assert main(["status", str(tmp_path), "--storage-options", "@/nowhere.yaml"]) == 2
    assert "@/nowhere.yaml: No such file" in capsys.readouterr().err
