"""A run and a submission with 40 secrets in their options: none of them is written or printed."""

from __future__ import annotations

import dataclasses
import json
import logging
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
    """Files with a mark in their bytes, or in what Parquet has packed."""
    import pyarrow.parquet as pq

    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = [path.name for path in files if MARK.encode() in path.read_bytes()]
    tables = [path for path in files if path.suffix == ".parquet"]
    found += [path.name for path in tables if MARK in str(pq.read_table(path).to_pylist())]
    return found


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
