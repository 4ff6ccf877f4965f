"""DuckDB helpers: Ctrl-C while a statement runs, and rows in batches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

T = TypeVar("T")
_LOOK_S = 0.2
_START_S = 5.0  # longest wait for a thread that Ctrl-C kept from starting


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Run DuckDB's work in a thread, so that Ctrl-C in the main thread can stop it.

    Python handles signals only between its own instructions.

    Args:
        connection: What ``work`` runs on.
        work: One statement, or the fetching of one batch.

    Raises:
        KeyboardInterrupt: The user stopped it; the statement has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals go to the main thread, which interrupts this one
    results: list[T] = []
    faults: list[BaseException] = []
    begun = threading.Event()
    done = threading.Event()  # not join(): a KeyboardInterrupt in it marks the thread as ended

    def run() -> None:
        begun.set()
        try:
            results.append(work())
        except BaseException as exc:
            faults.append(exc)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="textspot-sql", daemon=True).start()
        while not done.wait(_LOOK_S):  # an endless wait could miss a signal
            pass
    except KeyboardInterrupt:
        while begun.wait(_START_S) and not done.wait(_LOOK_S):
            with contextlib.suppress(duckdb.Error):  # closed meanwhile, and reopened
                connection.interrupt()  # once may be too early: before the statement has begun
        raise
    if faults:
        raise faults[0]
    return results[0]


def arrow_reader(relation: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    """A relation's rows in batches of at most ``rows``; the statement may run now."""
    make: Any = getattr(relation, "to_arrow_reader", None)  # DuckDB renamed it
    if make is None:
        make = relation.fetch_record_batch
    return make(rows)


def read_batches(
    connection: duckdb.DuckDBPyConnection, start: Callable[[], pa.RecordBatchReader]
) -> Iterator[pa.RecordBatch]:
    """The batches of a statement; Ctrl-C ends it.

    Args:
        connection: What it runs on.
        start: Begins it.
    """
    reader = interruptible(connection, start)
    while (batch := interruptible(connection, lambda: next(reader, None))) is not None:
        yield batch
