"""The in-process engine, end to end with scripted models in a real child process."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal

import pytest

from tests.support.fast_folder import fast_folder
from tests.support.scripted import (
    ScriptedModels,
    plain_scripts,
    scripted_config,
    scripted_parts,
    write_images,
)
from tests.support.tables_equal import rows
from textspot_ray.config import OutputConfig, SourceConfig
from textspot_ray.engine.run import exit_code, retry, run
from textspot_ray.errors import (
    AbortedError,
    ExitCode,
    FingerprintError,
    SourceError,
    TextspotError,
    UsageError,
)
from textspot_ray.storage.stores import LocalStore
from textspot_ray.tables.open import open_tables


@pytest.fixture
def tmp_path():
    with fast_folder() as folder:
        yield folder


def test_every_image_is_accounted_for(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(40))
    report = run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder))
    assert report.counts.images == 40
    assert report.counts.words == sum(n % 3 for n in range(40))
    assert exit_code(report) is ExitCode.OK
    tables = open_tables(str(tmp_path / "out"))
    assert tables.read("images").num_rows == 40


def kinds(out):
    return {row["image_id"][-8:-4]: row["kind"] for row in rows(out, "errors")}


def test_images_that_kill_or_stall_their_process_cost_one_row_each(tmp_path):
    scripts = [f"words=w{n}" for n in range(16)]
    scripts[2] = "words=x;do=crash"
    scripts[5] = "words=x;read_do=exit"
    scripts[8] = "words=x;read_do=hold"
    scripts[11] = "do=raise"
    scripts[13] = f"words=w13;do=kill_once:{tmp_path / 'killed'}"
    scripts[14] = f"words=w14;read_do=crash_once:{tmp_path / 'crashed'}"
    folder = write_images(tmp_path / "in", scripts)
    report = run(
        scripted_config(tmp_path / "out", min_deadline_s=1.0), parts=scripted_parts(folder)
    )
    assert (tmp_path / "killed").exists() and (tmp_path / "crashed").exists()
    assert kinds(tmp_path / "out") == {
        "0002": "crashed",
        "0005": "crashed",
        "0008": "stalled",
        "0011": "internal",
    }
    assert report.counts.images == 16 and report.counts.words == 12
    messages = {row["image_id"][-8:-4]: row for row in rows(tmp_path / "out", "errors")}
    assert "SIGABRT" in messages["0002"]["message"] and messages["0002"]["stage"] == "detect"
    assert "exit status 3" in messages["0005"]["message"]
    assert messages["0005"]["stage"] == "recognise"
    assert exit_code(report) is ExitCode.FAILED_IMAGES


def test_a_model_that_cannot_load_is_one_line_with_its_exit_code(tmp_path):
    folder = write_images(tmp_path / "in", ["words=a"])
    models = ScriptedModels(refuse="bundle x: detector.bin is truncated")
    with pytest.raises(TextspotError, match=r"^bundle x: detector.bin is truncated$") as caught:
        run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder, models))
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_model_that_crashes_while_loading_aborts(tmp_path):
    folder = write_images(tmp_path / "in", ["words=a"])
    config = scripted_config(tmp_path / "out", max_deaths=2)
    with pytest.raises(AbortedError, match=r"ended 2 times .* SIGABRT"):
        run(config, parts=scripted_parts(folder, ScriptedModels(die=True)))


def test_a_second_run_reads_and_does_nothing(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(10))
    config = scripted_config(tmp_path / "out")
    run(config, parts=scripted_parts(folder))
    before = sorted(p.name for p in (tmp_path / "out").glob("*/*.parquet"))
    # models that could not be loaded show that they are not even asked for
    unloadable = scripted_parts(folder, ScriptedModels(die=True))
    again = run(config, parts=unloadable)
    assert again.run_counts.images == 0 and again.counts.images == 10
    assert before == sorted(p.name for p in (tmp_path / "out").glob("*/*.parquet"))


def test_new_images_are_added_by_the_next_run(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(10))
    config = scripted_config(tmp_path / "out")
    run(config, parts=scripted_parts(folder))
    write_images(tmp_path / "in", plain_scripts(15))
    again = run(config, parts=scripted_parts(folder))
    assert again.run_counts.images == 5 and again.counts.images == 15


def test_changed_images_are_redone_when_asked(tmp_path):
    folder = write_images(tmp_path / "in", ["words=old"] * 6)
    run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder))
    (folder / "0003.img").write_text("words=newer,one")
    config = scripted_config(tmp_path / "out")
    config = dataclasses.replace(config, source=SourceConfig(on_changed="redo"))
    report = run(config, parts=scripted_parts(folder))
    assert report.run_counts.images == 1
    found = {row["image_id"][-8:-4]: row["text"] for row in rows(tmp_path / "out", "words")}
    assert found["0002"] == "old" and found["0003"] == "one"
    assert report.counts.words == 7


def test_retry_makes_failed_images_good(tmp_path):
    flag = tmp_path / "flag"
    scripts = plain_scripts(6)
    scripts[1] = f"words=fine;do=crash_once:{flag}"
    folder = write_images(tmp_path / "in", [*scripts, "do=bad"])
    (folder / "0004.img").rename(tmp_path / "away")
    parts = scripted_parts(folder)
    parts = dataclasses.replace(parts, listing=lambda: listed)
    (tmp_path / "away").rename(folder / "0004.img")
    listed = list(scripted_parts(folder).listing())
    (folder / "0004.img").rename(tmp_path / "away")
    config = scripted_config(tmp_path / "out")
    assert run(config, parts=parts).counts.failures == {"missing": 1, "corrupt": 1}
    (tmp_path / "away").rename(folder / "0004.img")
    report = retry(config, parts=parts)
    assert report.counts.failures == {"corrupt": 1} and report.counts.images == 7
    assert report.run_counts.images == 1


def test_a_source_fault_ends_the_run_with_its_message(tmp_path):
    def listing():
        yield from scripted_parts(folder).listing()
        raise SourceError("the archive went away")

    folder = write_images(tmp_path / "in", plain_scripts(3))
    parts = dataclasses.replace(scripted_parts(folder), listing=listing)
    with pytest.raises(SourceError, match="went away"):
        run(scripted_config(tmp_path / "out"), parts=parts)


def test_an_empty_source_is_a_finished_run(tmp_path):
    folder = write_images(tmp_path / "in", [])
    report = run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder))
    assert report.counts.images == 0 and exit_code(report) is ExitCode.OK


def test_other_settings_are_refused(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(3))
    run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder))
    parts = dataclasses.replace(scripted_parts(folder), fingerprint={"bundle": "other"})
    with pytest.raises(FingerprintError, match="bundle: scripted 1 there, other now"):
        run(scripted_config(tmp_path / "out"), parts=parts)


def test_a_leaking_worker_is_recycled(tmp_path):
    folder = write_images(tmp_path / "in", [f"words=w{n};do=leak;sleep=0.05" for n in range(120)])
    base = 120 * 2**20
    config = scripted_config(tmp_path / "out", actor_max_uss_bytes=base)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("textspot_ray")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        report = run(config, parts=scripted_parts(folder))
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert report.counts.images == 120 and report.counts.failed == 0
    assert any("recycled" in line for line in lines)


def test_a_store_without_exclusive_puts_needs_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalStore, "probe_exclusive", lambda self: False)
    source = write_images(tmp_path / "in", ["words=a"])
    config = scripted_config(tmp_path / "out")
    with pytest.raises(UsageError, match="--unsafe-single-driver"):
        run(config, parts=scripted_parts(source))
    assert not (tmp_path / "out" / "_textspot" / "table.json").exists()
    output = dataclasses.replace(config.output, unsafe_single_driver=True)
    allowed = dataclasses.replace(config, output=output)
    assert run(allowed, parts=scripted_parts(source)).counts.images == 1


@pytest.mark.parametrize("changed", [{"base": "/elsewhere"}, {"base": None}, {"id_column": "k"}])
def test_images_are_named_as_when_the_table_was_begun(tmp_path, changed):
    folder = write_images(tmp_path / "in", plain_scripts(4))
    config = scripted_config(tmp_path / "out")
    source = dataclasses.replace(config.source, base=str(tmp_path))
    config = dataclasses.replace(config, source=source)
    run(config, parts=scripted_parts(folder))
    again = dataclasses.replace(source, base=f"{tmp_path}/x/..", limit=None)
    run(dataclasses.replace(config, source=again), parts=scripted_parts(folder))
    other = dataclasses.replace(config, source=dataclasses.replace(source, **changed))
    with pytest.raises(FingerprintError, match=r"was begun with --.*, or another --out"):
        run(other, parts=scripted_parts(folder))
    assert open_tables(str(tmp_path / "out")).read("images").num_rows == 4


@pytest.mark.parametrize("where", ["out", "source"])
def test_memory_is_no_place_for_ray(tmp_path, where):
    config = scripted_config(tmp_path / "out", kind="ray")
    if where == "out":
        config = dataclasses.replace(config, output=OutputConfig(uri="memory://x"))
    else:
        config = dataclasses.replace(config, source=SourceConfig(uris=("memory://x",)))
    with pytest.raises(UsageError, match="--engine local"):
        run(config, parts=scripted_parts(tmp_path))


def test_a_signal_after_the_last_image_stops_nothing(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(4))
    sent = []

    def interrupt_at_the_end(progress):
        if progress.shards_done and not progress.planning and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    report = run(
        scripted_config(tmp_path / "out"),
        parts=scripted_parts(folder),
        on_progress=interrupt_at_the_end,
    )
    assert sent and report.shards_done == report.shards_total == 1
    assert exit_code(report) is ExitCode.OK
