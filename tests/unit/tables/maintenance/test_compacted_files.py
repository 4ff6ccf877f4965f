"""The sorted copy of words: sorted beyond memory, stopped at once, faults by their own name."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from textspot_ray.errors import StorageError
from textspot_ray.tables import duck
from textspot_ray.tables.maintenance import compacted_files as base_module
from textspot_ray.tables.maintenance.compacted_files import write_by_text
from textspot_ray.tables.schema import WORDS_BY_TEXT

ROWS = 5_000
WIDE = 200  # characters of a name, so that few rows fill the memory


def rows(seed, n=ROWS):
    rng = np.random.default_rng(seed)
    columns = {
        "text": (texts := [f"W{k}" for k in rng.integers(0, n, n)]),
        "text_key": [text.lower() for text in texts],
        "image_id": [f"s3://archive/{seed:03d}/{k:0{WIDE}d}.jpg" for k in range(n)],
        "word_index": np.arange(n, dtype=np.int32),
    }
    zeros = np.zeros(n, np.float32)
    return pa.table(
        [columns.get(name, zeros) for name in WORDS_BY_TEXT.names], schema=WORDS_BY_TEXT
    )


def test_what_exceeds_memory_is_spilled_beside_the_output_and_sorted_all_the_same(
    store, monkeypatch
):
    scratch = Path(store.local_path("_textspot/tmp"))
    spilled = []
    write = base_module.CompactedFileWriter.write

    def watched(writer, table):
        spilled.extend(scratch.glob("textspot-sort-*/*"))
        write(writer, table)

    monkeypatch.setattr(base_module.CompactedFileWriter, "write", watched)
    words = (rows(seed) for seed in range(80))
    parts = write_by_text(store, words, 1, 96 * 2**20, rows_per_file=50_000)
    assert spilled and not list(scratch.glob("textspot-sort-*"))
    assert [part.rows for part in parts][:-1] == [61_440] * 6
    found = pa.concat_tables(pq.read_table(store.local_path(part.path)) for part in parts)
    texts = found["text"].combine_chunks()
    assert pc.all(pc.less_equal(texts[:-1], texts[1:])).as_py()
    given = pa.concat_tables(rows(seed) for seed in range(80))
    order = [("image_id", "ascending")]
    assert found.sort_by(order).equals(given.sort_by(order))


def test_a_fault_of_the_rows_comes_out_as_it_is(store):
    def words():
        yield rows(0)
        raise StorageError("words/x.parquet is missing")

    with pytest.raises(StorageError, match=r"^words/x.parquet is missing$"):
        write_by_text(store, words(), 1, 2**28)
    assert not list(store.list("words_by_text/")) and not leftover()


def test_a_disk_that_cannot_take_what_spills_is_one_line_with_the_remedy(store, monkeypatch):
    class NoFolder(tempfile.TemporaryDirectory):
        def __enter__(self):
            file = Path(super().__enter__()) / "file"
            file.touch()
            return str(file / "below")

    monkeypatch.setattr(base_module.tempfile, "TemporaryDirectory", NoFolder)
    with pytest.raises(StorageError, match="cannot sort words by text") as caught:
        write_by_text(store, (rows(seed) for seed in range(80)), 1, 2**20)
    assert "free space or allow more memory" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(store.list("words_by_text/")) and not leftover()
    assert not list(Path(store.local_path("_textspot/tmp")).glob("textspot-sort-*"))


@pytest.mark.timeout(60)
def test_ctrl_c_stops_the_sort_while_it_still_takes_rows(store):
    closed = []
    main = threading.main_thread().ident

    def words():
        try:
            while True:  # an archive without end
                yield rows(0, 100)
                if not closed:
                    closed.append(False)
                    signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.001)
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        write_by_text(store, words(), 1, 2**28)
    assert closed[-1] is True and not leftover()


def test_an_interrupt_while_the_thread_starts_does_not_leave_it_running(monkeypatch):
    class Interrupted(threading.Thread):
        def start(self):
            super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr(duck.threading, "Thread", Interrupted)
    endless = "SELECT sum(hash(a.range, b.range)) FROM range(9000000) a, range(900000) b"
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt):
        duck.interruptible(connection, lambda: connection.execute(endless).fetchall())
    assert not leftover()


def test_a_signal_just_before_the_wait_is_heard(monkeypatch):
    class Late(threading.Event):
        """Python hears a signal between its steps: one that comes here waits with the thread."""

        def wait(self, timeout=None):
            assert timeout is not None, "Ctrl-C would be heard when the statement has ended"
            return super().wait(timeout)

    names = {name: getattr(threading, name) for name in ("Thread", "current_thread", "main_thread")}
    monkeypatch.setattr(duck, "threading", SimpleNamespace(Event=Late, **names))
    with duckdb.connect() as connection:
        assert duck.interruptible(connection, lambda: connection.execute("SELECT 1").fetchall())


def test_a_full_disk_while_sorted_rows_are_written_stops_everything(store, monkeypatch):
    def full(*_):
        raise StorageError("no space left")

    monkeypatch.setattr(base_module.CompactedFileWriter, "write", full)
    with pytest.raises(StorageError, match="no space left"):
        write_by_text(store, (rows(seed) for seed in range(3)), 1, 2**28)
    assert not leftover()


def leftover():
    mine = [thread for thread in threading.enumerate() if thread.name == "textspot-sql"]
    for thread in mine:  # it has told its end, and is about to be gone
        thread.join(5.0)
    return [thread for thread in mine if thread.is_alive()]
