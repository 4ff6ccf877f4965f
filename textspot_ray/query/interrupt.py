"""Ctrl-C while DuckDB works: Python hears signals only between its own steps."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import duckdb

T = TypeVar("T")
_LOOK_S = 0.2


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Do DuckDB's work in a thread, so that the main thread hears Ctrl-C and stops it.

    Args:
        connection: What ``work`` runs on.
        work: One statement, or the fetching of one batch.

    Raises:
        KeyboardInterrupt: The user stopped it; the statement has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals go to the main thread: whoever runs that interrupts this one
    results: list[T] = []
    faults: list[BaseException] = []
    done = threading.Event()  # not join(): a KeyboardInterrupt in it marks the thread as ended

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:
            faults.append(exc)
        finally:
            done.set()

    threading.Thread(target=run, name="textspot-sql", daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        while not done.wait(_LOOK_S):  # once may be too early: before the statement has begun
            with contextlib.suppress(duckdb.Error):  # closed meanwhile, and opened anew
                connection.interrupt()
        raise
    if faults:
        raise faults[0]
    return results[0]
