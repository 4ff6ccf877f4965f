from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.insight_tables import MakeTable, Page, word, write_shard
from textspot_ray.query.pages import read_pages
from textspot_ray.query.search import SearchQuery, search
from textspot_ray.query.views import open_views
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit import snapshot as snapshot_module
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.vacuum import finish


def account(uri: str) -> tuple[int, int, int]:
    """Images, the sum of their words, and rows of words: the last two must be equal."""
    with open_views(uri) as tables:
        images, n_words = tables.rows("SELECT count(*), coalesce(sum(n_words), 0) FROM images")[0]
        words = tables.rows("SELECT count(*) FROM words")[0][0]
        assert sum(len(page.words) for page in read_pages(tables)) == words
    return images, n_words, words


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["commit", "compact", "half", "litter"]), min_size=1, max_size=7))
def test_readers_see_whole_shards_only(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    uri = str(tmp_path_factory.mktemp("state") / "out")
    store = open_store(uri, create=True)
    open_ledger(store, {"precision": "f32", "detector": "0123abcd"})
    committed = 0
    for number, step in enumerate(steps):
        if step == "commit":
            write_shard(
                store, [Page(f"{number}-{n}.jpg", [word("exit")] * n) for n in range(4)], number
            )
            committed += 4
        elif step == "compact":
            compact(open_ledger(store, create=False))
        else:  # what a kill between parts and record leaves behind
            part = Path(uri, "words", f"000000-{number:06d}-00-0123456789ab.parquet")
            part.parent.mkdir(exist_ok=True)
            whole = sorted(Path(uri).glob("words/*.parquet"))
            data = whole[0].read_bytes() if whole else b"PAR1"
            part.write_bytes(data if step == "litter" else data[: len(data) // 2])
        images, n_words, words = account(uri)
        assert images == committed and n_words == words == committed // 4 * 6


def test_an_open_view_outlives_a_compaction(make_table: MakeTable) -> None:
    uri = make_table([Page("a.jpg", [word("exit")])], [Page("b.jpg", [word("exit")])])
    with open_views(uri) as early:
        compact(open_ledger(open_store(uri), create=False))
        write_shard(open_store(uri), [Page("c.jpg", [word("exit")])], 2)
        assert len(search(early, SearchQuery(("exit",)))) == 2
    with open_views(uri) as late:
        assert late.files.data_files["words_by_text"]
        assert [hit.image_id for hit in search(late, SearchQuery(("exit",)))] == [
            "a.jpg",
            "b.jpg",
            "c.jpg",
        ]


def test_what_others_replace_is_read_from_the_latest_state(tmp_path: Path) -> None:
    uri = str(tmp_path / "out")
    store = open_store(uri, create=True)
    ledger = open_ledger(store, {"precision": "f32", "detector": "0123abcd"})
    for number in range(3):
        write_shard(store, [Page(f"{number}.jpg", [word("exit")])], number)
    ledger.refresh()
    assert ledger.fold(at_least=1)
    with open_views(uri) as tables, pytest.MonkeyPatch.context() as patch:
        # A fold replaces the manifest alone: all files of rows are those that are open here.
        manifests = [m.path for m in ledger.snapshot.manifests]
        for number in (3, 4):
            write_shard(store, [], number)
        patch.setattr(snapshot_module, "MERGE_FACTOR", 2)
        ledger.refresh()
        assert ledger.fold(at_least=1)
        finish(ledger, grace_s=0)
        assert not any(store.exists(path) for path in manifests)
        tables.add_shards()
        assert tables.rows("SELECT shards FROM runs") == [(5,)]
    with open_views(uri) as tables:
        compact(ledger)
        finish(ledger, grace_s=0)
        assert tables.rows("SELECT count(*) FROM images WHERE width > 0") == [(3,)]
