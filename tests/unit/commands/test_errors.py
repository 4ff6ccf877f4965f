"""``textspot errors``: rows as they are in JSON, and without control characters for terminals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.table_data import found, make_items, make_result
from textspot_ray.cli import main
from textspot_ray.records import ErrorKind, ImageError, PageInfo, Shard, ShardId, Stage
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.writer import ShardWriter

CLEAR = "\x1b[2J"


@pytest.mark.parametrize("option", [[], ["--damaged"]])
def test_what_a_file_says_cannot_move_the_cursor(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path), create=True)
    ledger, (failed, damaged) = found(store), make_items(2)
    error = ImageError(Stage.DECODE, ErrorKind.CORRUPT, f"{CLEAR}no image")
    info = PageInfo(640, 480, "JPEG", 1, damage=f"{CLEAR}cut")
    shard = Shard(ShardId(0, 0), (failed, damaged))
    with ShardWriter(store, shard, run_id="r", fingerprint=ledger.digest) as writer:
        writer.add(replace(make_result(failed, fail=False), words=(), error=error))
        writer.add(replace(make_result(damaged, fail=False), info=info))
        assert writer.commit() is not None
    assert main(["errors", str(tmp_path), *option]) == 0
    shown = capsys.readouterr().out
    assert CLEAR not in shown and "\\x1b[2J" in shown and shown.count("\n") == 1
    assert main(["errors", str(tmp_path), *option, "--json"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert CLEAR in row["damage" if option else "message"]
