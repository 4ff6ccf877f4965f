"""Finished pages of long files, kept beside the table until their shard is committed.

A file of thousands of pages is one item of one shard, whose rows count only when all of it is done.
Its pages are done in blocks of `BLOCK_PAGES`, and each finished block is stored under
``_textspot/pages/`` for whoever needs it next: the next run if this one is stopped or killed, or
the slot that owns the shard if an idle slot has done the block for it. Blocks are a cache, not part
of the table: they are valid for the same bytes (by sha256) in the same generation of the same
shard, readers never look at them, and of two blocks with the same pages either will do. Each begins
with the sha256 of its content, and a damaged one is ignored; otherwise damage would be committed as
words.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import msgspec

from textspot_ray.errors import StorageError
from textspot_ray.records import Encoded, ImageResult, Item, Shard, ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import pages_prefix
from textspot_ray.tables.commit.data_files import delete_pages

_LOG = logging.getLogger(__name__)
LONG_PAGES: Final = 64  # finished pages are kept of files with more
BLOCK_PAGES: Final = 32
_JOIN_S: Final = 10.0
_DIGEST_BYTES: Final = 32
_NO_ITEM: Final = Item("", "")


@dataclass(frozen=True, slots=True)
class LongFile:
    """A long file that a slot works on, or some of its pages.

    Attributes:
        shard: The shard it belongs to.
        generation: Of the shard.
        image_id: The file's.
        start: The first page, from 0; the first of a block.
        stop: The page after the last.
    """

    shard: ShardId
    generation: int
    image_id: str
    start: int
    stop: int

    @property
    def key(self) -> tuple[ShardId, int, str]:
        """Identifies the file."""
        return self.shard, self.generation, self.image_id


@dataclass(slots=True)
class _Block:
    """A block that is being done."""

    left: int  # unfinished pages
    results: list[ImageResult]
    changed: bool = False  # since it was stored


class DonePages:
    """Finished pages of a shard's long files.

    Args:
        store: The output folder.
        shard: Their shard.
        fingerprint: Digest of the table's fingerprint.
    """

    def __init__(self, store: Store, shard: Shard, fingerprint: str) -> None:
        self._store = store
        self._prefix = pages_prefix(shard.id, shard.generation)
        self._fingerprint = fingerprint
        self._blocks: dict[str, _Block] = {}  # by path
        self._putting: list[threading.Thread] = []

    def begin(self, encoded: Encoded, start: int, stop: int) -> list[ImageResult]:
        """Begin a block: `add` is to be called with each of its pages that is not done already.

        Args:
            encoded: The file.
            start: The block's first page, from 0.
            stop: The page after the block's last.

        Returns:
            The pages that are done already.
        """
        if encoded.sha256 is None:
            return []
        path = self._path(encoded, start)
        done = {r.page: r for r in self._read(path) if start <= r.page < stop}
        left = stop - start - len(done)
        if left:
            self._blocks[path] = _Block(left, list(done.values()))
        return [replace(result, item=encoded.item) for result in done.values()]

    def add(self, encoded: Encoded, result: ImageResult) -> bool:
        """Take a finished page; the last one of a block stores the block, in a thread.

        Returns:
            Whether it is the last one of its block.
        """
        path = self._path(encoded, result.page)
        block = self._blocks.get(path)
        if block is None:
            return False
        block.left -= 1
        if result.error is None or not result.error.kind.transient:  # else tried again
            block.results.append(replace(result, item=_NO_ITEM))
            block.changed = True
        if not block.left:
            del self._blocks[path]
            self._putting = [thread for thread in self._putting if thread.is_alive()]
            thread = threading.Thread(
                target=self._put, args=(path, block), name="done-pages", daemon=True
            )
            thread.start()
            self._putting.append(thread)
        return not block.left

    def flush(self) -> None:
        """Store unfinished blocks: the shard is given up, and another slot will continue it."""
        while self._blocks:
            self._put(*self._blocks.popitem())
        self._join()

    def drop(self) -> None:
        """Delete everything: the shard is committed. Leftovers are for vacuum."""
        self._blocks.clear()
        self._join()  # or the last blocks would be stored after the deletion
        with suppress(StorageError):
            delete_pages(self._store, [entry.path for entry in self._store.list(self._prefix)])

    def _join(self) -> None:
        for thread in self._putting:
            thread.join(_JOIN_S)

    def _path(self, encoded: Encoded, page: int) -> str:
        text = "\0".join((encoded.item.image_id, str(encoded.sha256), self._fingerprint))
        key = sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return f"{self._prefix}{key}-{page // BLOCK_PAGES:06d}.msgpack"

    def _read(self, path: str) -> list[ImageResult]:
        try:
            data = self._store.read(path)
            digest, packed = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if sha256(packed).digest() != digest:
                raise StorageError("its bytes have changed since it was written")
            return msgspec.msgpack.decode(packed, type=list[ImageResult])
        except FileNotFoundError:
            return []
        except (StorageError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            _LOG.warning("pages done before are done again: %s: %s", path, exc)
            return []

    def _put(self, path: str, block: _Block) -> None:
        if not block.changed:
            return
        try:
            packed = msgspec.msgpack.encode(block.results)
            self._store.put(path, sha256(packed).digest() + packed)
        except StorageError as exc:  # costs some minutes of work if the run is killed
            _LOG.warning("pages that are done could not be kept for a later run: %s", exc)
