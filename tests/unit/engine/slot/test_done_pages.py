"""Long files: the pages that are done outlive the run that did them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.inprocess import Bench, ListReader, ListWriter, make_shard
from textspot_ray.engine.slot.done_pages import BLOCK_PAGES, LONG_PAGES, DonePages
from textspot_ray.records import Encoded, ErrorKind, ImageError, Item, Shard, Stage
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import PAGES

PAGES_IN_FILE = 300


class HashedReader(ListReader):
    """With the digest of the bytes, as the real one."""

    def read(self, items: Iterable[Item]) -> Iterator[Encoded]:
        for encoded in super().read(items):
            yield replace(encoded, sha256=sha256(encoded.data or b"").hexdigest())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"), create=True)


def work(
    store: Store, shard: Shard, stop_at: int | None = None, fingerprint: str = "f"
) -> tuple[ListWriter, int]:
    """What was written of a shard, and how many pages were detected."""
    # No deadline: on a busy machine a call would be made again, and counted.
    bench = Bench(reader=HashedReader, min_deadline_s=60.0, start_timeout_s=60.0)
    writer = ListWriter()
    bench.runner.offer(shard, writer, DonePages(store, shard, fingerprint))
    while not bench.runner.idle and (stop_at is None or len(writer.results) < stop_at):
        bench.runner.pump(0.001, more=False)
    bench.runner.close()
    return writer, len(bench.workers[0].asked) // 2  # each is asked twice: boxes, words


def kept(store: Store) -> list[str]:
    found = [entry.path for entry in store.list(PAGES)]
    folder = store.local_path(PAGES)
    assert folder is not None and (found or not folder.exists())  # no empty folders either
    return found


def test_an_interrupted_file_goes_on_where_it_was(store: Store) -> None:
    shard = make_shard([f"words=a;pages={PAGES_IN_FILE}", "words=b"])
    undisturbed, n = work(store, shard)
    assert n == PAGES_IN_FILE + 1 and not kept(store)
    first, before = work(store, shard, stop_at=170)
    assert first.ended == "discarded" and 170 <= before < PAGES_IN_FILE
    assert len(kept(store)) == 170 // BLOCK_PAGES + 1
    second, after = work(store, shard)
    assert second.ended == "committed" and not kept(store)
    assert before + after <= PAGES_IN_FILE + 5  # those in flight, and the first, which tells pages
    key = lambda result: (result.item.image_id, result.page)  # noqa: E731
    assert sorted(second.results, key=key) == sorted(undisturbed.results, key=key)
    pages = [r.page for r in second.results if r.info is not None and r.info.pages > 1]
    assert pages[:170] == sorted(pages[:170])  # so that the writer holds nothing back


@pytest.mark.parametrize("what", ["content", "fingerprint", "generation", "other", "flip"])
def test_pages_of_something_else_are_not_taken(store: Store, what: str) -> None:
    shard = make_shard([f"words=a;pages={PAGES_IN_FILE}"])
    work(store, shard, stop_at=170)
    fingerprint = "f"
    if what == "content":
        (item,) = shard.items
        shard = replace(shard, items=(replace(item, extra=f"{item.extra};x=1"),))
    elif what == "generation":
        shard = replace(shard, generation=1)
    elif what == "fingerprint":
        fingerprint = "g"
    else:
        for path in kept(store):
            data = store.read(path)
            at = data.index(b"text_confidence") + 20  # in a number: readable, and wrong
            flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            store.put(path, b"\x93\xc1" if what == "other" else flipped)
    writer, n = work(store, shard, fingerprint=fingerprint)
    assert n == PAGES_IN_FILE == len(writer.results)


def test_what_may_pass_is_tried_again_and_short_files_are_not_kept(store: Store) -> None:
    shard = make_shard([f"words=a;pages={PAGES_IN_FILE}"])
    (item,) = shard.items
    encoded = Encoded(item, b"x", sha256="0")
    writer, _ = work(store, shard)
    results = {r.page: replace(r, item=item) for r in writer.results}
    for result in results.values():
        kind = ErrorKind.STALLED if result.page == 35 else ErrorKind.CORRUPT
        failed = replace(result, words=(), error=ImageError(Stage.DETECT, kind, "no"))
        results[result.page] = failed if result.page in (35, 36) else result

    def begin(start: int, stop: int) -> tuple[DonePages, set[int]]:
        pages = DonePages(store, shard, "f")
        done = pages.begin(encoded, start, stop)
        assert all(result == results[result.page] for result in done)
        return pages, {result.page for result in done}

    pages, done = begin(BLOCK_PAGES, 2 * BLOCK_PAGES)
    assert not done
    for page in range(BLOCK_PAGES, 2 * BLOCK_PAGES - 1):
        pages.add(encoded, results[page])
    assert not kept(store)  # one is missing
    pages.flush()
    pages, done = begin(BLOCK_PAGES, 2 * BLOCK_PAGES)
    assert done == set(range(BLOCK_PAGES, 2 * BLOCK_PAGES - 1)) - {35}
    for page in (35, 2 * BLOCK_PAGES - 1):
        pages.add(encoded, replace(results[page], error=None))
    pages.flush()
    results[35] = replace(results[35], error=None)
    assert begin(BLOCK_PAGES, 2 * BLOCK_PAGES)[1] == set(range(BLOCK_PAGES, 2 * BLOCK_PAGES))
    assert not DonePages(store, shard, "f").begin(replace(encoded, sha256=None), BLOCK_PAGES, 64)
    work(store, make_shard([f"words=a;pages={LONG_PAGES}"]), stop_at=40)
    assert len(kept(store)) == 1
