"""Words sorted by text: any rows, any memory, any share of one text; in order as DuckDB has it."""

from __future__ import annotations

import subprocess
import sys
from threading import Event

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textspot_ray.errors import AbortedError
from textspot_ray.tables.maintenance import text_sort as textpieces
from textspot_ray.tables.maintenance import text_sort as textsort
from textspot_ray.tables.maintenance.text_sort import TextSort
from textspot_ray.tables.schema import WORDS_BY_TEXT

TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["", "a", "a\0", "a\0b", "ab", "exit", "é", "e\u0301", "z", "ß"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    # on both sides of the surrogates: UTF-16 orders these the other way round
    st.sampled_from(["\uff5e", "\U0001f600", "\ue000", "\U00010000", "日本", "日本語"]),
)


def table(texts, first=0, images=7):
    """Rows whose ``word_index`` tells in which order they came."""
    n = len(texts)
    index = range(first, first + n)
    floats = pa.array([None if k % 5 == 3 else k / 2 for k in index], pa.float32())
    columns = {
        "text": pa.array(texts, pa.string()),
        "image_id": pa.array(
            [None if k % 11 == 10 else f"s3://a/{k // images}.jpg" for k in index], pa.string()
        ),
        "word_index": pa.array(index, pa.int32()),
    }
    return pa.table([columns.get(f.name, floats) for f in WORDS_BY_TEXT], schema=WORDS_BY_TEXT)


def encoded(rows):
    """The same with strings as dictionaries, as they are read from Parquet."""
    for name in ("text", "image_id"):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, rows.column(name).dictionary_encode())
    return rows


def key(row):
    text = row["text"]
    return (text is None, (text or "").encode(), row["word_index"])


def sort(tables, folder, memory_bytes=2**30, lanes=1, parts=1):
    """All rows sorted; lanes bring a like number of tables each, the first lane the first ones."""
    tables = list(tables)
    sorting = TextSort(memory_bytes, str(folder), lanes=lanes)
    for k, rows in enumerate(tables):
        sorting.add(rows, k * lanes // len(tables))
    found = [decoded(rows) for part in range(parts) for rows in sorting.sorted(part, parts)]
    return pa.concat_tables(found) if found else WORDS_BY_TEXT.empty_table()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(textsort, "BATCH_ROWS", 6)
    monkeypatch.setattr(textsort, "SAMPLE_BATCHES", 2)
    monkeypatch.setattr(textpieces, "BOUNDS", 3)
    monkeypatch.setattr(textpieces, "OUT_ROWS", 5)
    monkeypatch.setattr(textpieces, "SAMPLE_ROWS", 4)


@pytest.mark.parametrize("memory_bytes", [1, 2_000, 2**30])
@pytest.mark.usefixtures("small")
def test_any_rows_come_in_order_of_their_bytes_each_once(tmp_path_factory, memory_bytes):
    folder = tmp_path_factory.mktemp("sort")

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.lists(TEXTS, max_size=15), max_size=6),
        st.booleans(),
        st.integers(1, 3),
        st.integers(1, 3),
    )
    def check(lists, as_dictionaries, lanes, parts):
        tables, first = [], 0
        for texts in lists:
            rows = table(texts, first)
            tables.append(encoded(rows) if as_dictionaries else rows)
            first += len(texts)
        plain = [row for texts in tables for row in decoded(texts).to_pylist()]
        found = sort(tables, folder, memory_bytes, lanes, parts)
        assert found.to_pylist() == sorted(plain, key=key)
        assert not list(folder.iterdir())

    check()


def decoded(rows):
    return rows.cast(WORDS_BY_TEXT)


def many(n, seed=0, share=0.0):
    rng = np.random.default_rng(seed)
    texts = np.array([f"{'wort' * (k % 4)}{k}" for k in rng.zipf(1.3, n) % 50_000])
    texts[rng.random(n) < share] = "the"
    return texts.tolist()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_order_is_duckdbs_and_ties_stay_as_they_came_with_files_and_without(tmp_path, share):
    given_rows = [table(many(30_000, k, share), 30_000 * k) for k in range(10)]
    within = sort(given_rows, tmp_path).combine_chunks()
    assert within.num_rows == 300_000
    assert sort(given_rows, tmp_path, 2**20).combine_chunks().equals(within)
    for memory_bytes in (2**30, 2**20):
        by_threads = sort(given_rows, tmp_path, memory_bytes, lanes=3, parts=2)
        assert by_threads.combine_chunks().equals(within)
    with duckdb.connect() as connection:
        connection.register("w", pa.concat_tables(given_rows))
        wanted = connection.sql("SELECT * FROM w ORDER BY text, word_index").to_arrow_table()
    assert within.equals(wanted.cast(WORDS_BY_TEXT))


def test_files_hold_what_memory_does_not_and_one_text_is_never_loaded_whole(tmp_path, monkeypatch):
    held, largest = [], []
    encode, pieces = textsort._Lane.encode, textsort.sorted_pieces

    def watched(lane):
        encode(lane)
        held.append(lane.held_bytes)

    def watched_pieces(some, images):
        largest.append(sum(piece.rows.num_rows for piece in some))
        return pieces(some, images)

    monkeypatch.setattr(textsort._Lane, "encode", watched)
    monkeypatch.setattr(textsort, "sorted_pieces", watched_pieces)
    monkeypatch.setattr(textsort, "BATCH_ROWS", 5_000)
    texts = [many(5_000, k, 0.9) for k in range(60)]
    rows = (table(some, 5_000 * k) for k, some in enumerate(texts))
    found = sort(rows, tmp_path, 2**20)
    assert found.num_rows == 300_000 and not list(tmp_path.iterdir())
    assert max(held) <= 2**20 // 2  # spilled before the limit
    assert max(largest) < 10_000  # 270 000 rows of one text went past


def test_files_are_where_they_should_be_while_rows_come_out(tmp_path):
    sorting = TextSort(2**20, str(tmp_path))
    for k in range(10):
        sorting.add(table(many(30_000, k), 30_000 * k))
    in_order = sorting.sorted()
    next(in_order)
    assert len(list(tmp_path.glob("*.arrow"))) > 3


def test_rows_that_a_range_cannot_be_foreseen_for_are_sorted_all_the_same(tmp_path, monkeypatch):
    """The first texts say nothing of the later ones: all of those fall into one range."""
    monkeypatch.setattr(textsort, "BATCH_ROWS", 1_000)
    monkeypatch.setattr(textsort, "SAMPLE_BATCHES", 1)
    texts = ["a"] * 1_000 + [f"z{k * 7919 % 40_000:06}" for k in range(40_000)]
    found = sort([table(texts)], tmp_path, 2**18)
    assert found.column("text").to_pylist() == sorted(texts)


def test_a_stopped_sort_ends_where_it_takes_rows(tmp_path):
    stop = Event()
    sorting = TextSort(2**20, str(tmp_path), stop)
    for k in range(10):
        sorting.add(table(many(30_000, k), 30_000 * k))
    in_order = sorting.sorted()
    next(in_order)
    stop.set()
    with pytest.raises(AbortedError):
        list(in_order)


def test_nothing_gives_nothing(tmp_path):
    assert sort([], tmp_path).num_rows == 0
    assert sort([table([])], tmp_path).num_rows == 0


def test_pandas_is_not_imported_for_it(tmp_path):
    pq.write_table(table(many(150_000)), tmp_path / "words.parquet")
    code = (
        "import sys, pyarrow.parquet as pq\n"
        "from textspot_ray.tables.maintenance.text_sort import TextSort\n"
        "sort = TextSort(2**20, sys.argv[1])\n"
        "sort.add(pq.ParquetFile(sys.argv[1] + '/words.parquet').read())\n"
        "assert sum(t.num_rows for t in sort.sorted()) == 150_000\n"
        "sys.exit('pandas' in sys.modules)\n"
    )
    assert not subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode


def test_a_lane_that_has_spilled_makes_the_others_spill_and_none_need_have_rows(tmp_path):
    sorting = TextSort(2**21, str(tmp_path), lanes=3)
    texts = [many(30_000, k) for k in range(6)]
    for k, some in enumerate(texts[:5]):
        sorting.add(table(some, 30_000 * k), 0)
    assert list(tmp_path.iterdir())
    sorting.add(table(texts[5], 150_000), 1)
    found = pa.concat_tables([decoded(rows) for rows in sorting.sorted()])
    assert found.to_pylist() == sorted(
        pa.concat_tables([table(some, 30_000 * k) for k, some in enumerate(texts)]).to_pylist(),
        key=key,
    )
    assert not list(tmp_path.iterdir())
