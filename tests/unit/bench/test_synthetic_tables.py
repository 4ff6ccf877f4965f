from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.bench.synthetic_tables import make_vocabulary, write_synthetic
from jobs.bench.table_bench import bench_tables, report
from textspot_ray.errors import UsageError
from textspot_ray.query.search import Combine, Mode, Region, SearchQuery, search
from textspot_ray.query.views import open_views
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("made") / "up")
    write_synthetic(uri, images=5000, words=40_000)
    return uri


def test_the_account_is_sound(table: str) -> None:
    with open_views(table) as tables:
        images, words, failed = tables.rows(
            "SELECT count(*), sum(n_words), count(*) FILTER (status = 'failed') FROM images"
        )[0]
        assert images == 5000
        assert tables.rows("SELECT count(*) FROM words") == [(words,)]
        assert tables.rows("SELECT count(*) FROM errors") == [(failed,)]
        tables.add_shards()
        assert tables.rows("SELECT images, words FROM runs") == [(images, words)]
        bad = tables.rows(
            "SELECT count(*) FROM words WHERE len(char_confidences) <> len(text) "
            "OR len(polygon) <> 8 OR x_max <= x_min"
        )
        assert bad == [(0,)]


def test_the_same_seed_gives_the_same_rows(table: str, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    write_synthetic(again, images=5000, words=40_000)
    sql = "SELECT sum(hash(image_id, word_index, text, x_min)) FROM words"
    with open_views(table) as a, open_views(again) as b:
        assert a.rows(sql) == b.rows(sql)


def test_words_are_distinct_and_full_folders_are_refused(table: str) -> None:
    words = make_vocabulary(size=5000)
    assert len(set(words)) == 5000 and len(words[0]) <= len(words[-1])
    with pytest.raises(UsageError, match="empty folder"):
        write_synthetic(table, images=10, words=10)


def test_compacting_changes_no_answer(table: str, tmp_path: Path) -> None:
    copied = str(tmp_path / "compacted")
    write_synthetic(copied, images=5000, words=40_000)
    queries = _queries(table)
    with open_views(table) as tables:
        before = [search(tables, query) for query in queries]
    compact(open_ledger(open_store(copied), create=False))
    with open_views(copied) as tables:
        assert tables.files.data_files["words_by_text"]
        assert [search(tables, query) for query in queries] == before
    assert [bool(hits) for hits in before] == [True] * len(queries)


def _queries(table: str) -> list[SearchQuery]:
    with open_views(table) as tables:
        pair = tables.rows(
            "SELECT a.text, b.text FROM words a JOIN words b ON a.image_id = b.image_id "
            "AND b.word_index = a.word_index + 1 AND a.word_index = 0 "
            "AND len(a.text) > 3 AND len(b.text) > 3 ORDER BY ALL LIMIT 1"
        )[0]
    word = pair[0]
    return [
        SearchQuery((word,)),
        SearchQuery((word[:3],), mode=Mode.PREFIX),
        SearchQuery((word[1:3],), mode=Mode.CONTAINS),
        SearchQuery((word,), mode=Mode.FUZZY, distance=2),
        SearchQuery((word,), mode=Mode.FUZZY, ocr=True),
        SearchQuery((f"^{word[:2]}",), mode=Mode.REGEX),
        SearchQuery(pair),
        SearchQuery(pair, combine=Combine.ALL),
        SearchQuery(pair, combine=Combine.ANY, limit=None),
        SearchQuery(region=Region(0, 0, 0.1, 0.1, True)),
    ]


@pytest.mark.slow
def test_bench_makes_compacts_and_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.bench.program import main

    out = tmp_path / "figures.json"
    options = ["--tables", str(tmp_path / "t"), "--quick", "--out", str(out)]
    options += ["--table-images", "3000", "--table-words", "30000"]
    assert main(options) == 0
    shown = capsys.readouterr().out
    assert "compact:" in shown and "exact, common word" in shown
    assert json.loads(out.read_text())["compact"]["words"] > 0
    assert main(options) == 0  # the table is there by now
    assert "compact:" not in capsys.readouterr().out


def test_bench_names_what_is_slow(table: str) -> None:
    timings = bench_tables(table, repeats=1)
    assert {"exact, common word", "phrase of two", "fuzzy 1"} <= {t.name for t in timings}
    assert all(t.found for t in timings if t.name in ("exact, common word", "phrase of two"))
    assert "query start-up" in report(timings)
