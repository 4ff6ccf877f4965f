"""How fast look-ups are on a large table: queries in one process, several times, medians count."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jobs.bench.synthetic_tables import write_synthetic
from textspot_ray.errors import AbortedError, TableError
from textspot_ray.query.pages import read_page
from textspot_ray.query.search import Combine, Mode, Region, SearchQuery, search
from textspot_ray.query.sql import run_query
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured query, in seconds.

    Attributes:
        name: What was asked.
        aim_s: What it should take, on two idle cores.
        median_s: Median time of the repeats.
        first_s: Time of the first, cold one.
        cpu_s: Median processor time of all threads; tells what a busy machine hides.
        found: Hits.
    """

    name: str
    aim_s: float
    median_s: float
    first_s: float
    cpu_s: float
    found: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """What compacting took, in a process of its own."""

    words: int
    seconds: float
    cpu_s: float
    peak_bytes: int


def prepare(uri: str, images: int, words: int, say: Callable[[str], None]) -> Compaction | None:
    """Make up a table and compact it, unless the folder holds one already.

    Raises:
        AbortedError: The compaction failed.
    """
    try:
        open_ledger(open_store(uri), create=False)
        return None
    except TableError:
        pass
    say(f"making up {images} images with {words} words in {uri}")
    made = write_synthetic(uri, images, words)
    say(f"made {made.words} words in {made.seconds:.0f} s; compacting")
    os.sync()  # what making the table has left to write is not compact's to wait for
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "textspot_ray", "compact", uri],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise AbortedError(f"textspot compact {uri} ended with status {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Compaction(made.words, seconds, cpu_s, peak)


def bench_tables(uri: str, repeats: int = 5, threads: int | None = None) -> list[Timing]:
    """Time the queries of a table made by `synthetic_tables`, compacted or not.

    Args:
        uri: The table.
        repeats: How often each query runs.
        threads: DuckDB's threads; default: all cores.
    """
    start, cpu = time.perf_counter(), time.process_time()
    tables = open_views(uri, threads=threads)
    run_query(tables, "SELECT 1").read_all()
    taken = time.perf_counter() - start
    timings = [Timing("query start-up", 0.5, taken, taken, time.process_time() - cpu, 1)]
    with tables:
        common, rare, pair = _samples(tables.rows)
        queries: list[tuple[str, float, SearchQuery]] = [
            ("exact, common word", 0.15, SearchQuery((common,))),
            ("exact, rare word", 0.15, SearchQuery((rare,))),
            ("exact, no hit", 0.15, SearchQuery(("zzzzzzzzz",))),
            ("prefix", 0.15, SearchQuery((rare[:4],), mode=Mode.PREFIX)),
            ("contains", 1.5, SearchQuery((rare[1:5],), mode=Mode.CONTAINS)),
            ("fuzzy 1", 1.5, SearchQuery((rare,), mode=Mode.FUZZY)),
            ("fuzzy 1, reader's", 1.5, SearchQuery((rare,), mode=Mode.FUZZY, ocr=True)),
            ("phrase of two", 1.5, SearchQuery(pair)),
            ("two words in one image", 1.5, SearchQuery(pair, combine=Combine.ALL)),
            ("box in pixels", 1.0, SearchQuery(region=Region(0, 0, 200, 100, False))),
            ("box in shares", 1.0, SearchQuery(region=Region(0, 0, 0.1, 0.1, True))),
            (
                "box and prefix",
                1.0,
                SearchQuery(("sta",), mode=Mode.PREFIX, region=Region(0, 0, 400, 300, False)),
            ),
        ]
        for name, aim_s, query in queries:
            timings.append(_time(name, aim_s, repeats, partial(_hits, tables, query)))
        image_id = str(tables.rows("SELECT min(image_id) FROM images WHERE n_words > 5")[0][0])
        timings.append(_time("words of one image", 0.15, repeats, partial(_page, tables, image_id)))
        count = "SELECT text, count(*) AS n FROM words GROUP BY text ORDER BY n DESC LIMIT 10"
        timings.append(_time("SQL: commonest words", 5.0, repeats, lambda: _rows(tables, count)))
    return timings


def report(timings: Sequence[Timing], compaction: Compaction | None = None) -> str:
    """Timings as text, with what they should be."""
    lines = []
    if compaction is not None:
        c = compaction
        lines.append(
            f"compact: {c.words / c.seconds / 1e6:.2f} M words/s (aim 1), "
            f"{c.words / c.cpu_s / 1e6:.2f} M words a second of processor time, "
            f"{c.peak_bytes / 2**30:.2f} GiB at most (aim 2)"
        )
    lines += [f"{'':26}{'median':>9}{'first':>9}{'cpu':>9}{'aim':>8}{'hits':>8}"]
    lines += [
        f"{t.name:<26}{t.median_s:8.3f}s{t.first_s:8.3f}s{t.cpu_s:8.3f}s{t.aim_s:7.2f}s{t.found:8}"
        f"{'' if t.median_s <= t.aim_s else '  slower than the aim'}"
        for t in timings
    ]
    return "\n".join(lines) + "\n"


def _time(name: str, aim_s: float, repeats: int, run: Callable[[], int]) -> Timing:
    times, cpu_times = [], []
    found = 0
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        found = run()
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu)
    return Timing(
        name, aim_s, statistics.median(times), times[0], statistics.median(cpu_times), found
    )


def _hits(tables: TableViews, query: SearchQuery) -> int:
    return len(search(tables, query))


def _page(tables: TableViews, image_id: str) -> int:
    page = read_page(tables, image_id)
    return 0 if page is None else len(page.words)


def _rows(tables: TableViews, sql: str) -> int:
    return len(tables.rows(sql))


def _samples(rows: Callable[..., list[tuple[object, ...]]]) -> tuple[str, str, tuple[str, str]]:
    """A common word, a rare one of some length, and two that stand side by side."""
    common = rows(
        "SELECT text FROM words WHERE len(text) >= 4 GROUP BY text ORDER BY count(*) DESC LIMIT 1"
    )
    rare = rows(
        "SELECT text FROM words WHERE len(text) BETWEEN 6 AND 9 GROUP BY text "
        "HAVING count(*) <= 60 ORDER BY count(*) DESC, text LIMIT 1"
    )
    pair = rows(
        """
        SELECT a.text, b.text FROM (FROM words LIMIT 200000) a JOIN (FROM words LIMIT 200000) b
        ON a.image_id = b.image_id AND b.word_index = a.word_index + 1 AND a.word_index % 4 = 0
        WHERE len(a.text) BETWEEN 4 AND 6 AND len(b.text) BETWEEN 4 AND 6
        GROUP BY ALL ORDER BY count(*) DESC, 1, 2 LIMIT 1
        """
    )
    return str(common[0][0]), str(rare[0][0]), (str(pair[0][0]), str(pair[0][1]))
