"""Pages of long files that are done, kept beside the table until their shard is committed.

A file of thousands of pages is one item of one shard, whose rows count once all of it is done. So
that a run that is stopped or killed in the middle goes on where it was, every `PAGES_AT_ONCE`
finished pages are put under ``_textspot/pages/``; whoever works on the shard next takes them from
there. They are a cache and no part of the table: they hold for the same bytes (by sha256) in the
same generation of the same shard, readers never look at them, and a damaged one is passed over:
each begins with the sha256 of what follows, as damage would otherwise be committed as words.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Final

import msgspec

from textspot_ray.errors import StorageError
from textspot_ray.records import Encoded, ImageResult, Item, Shard
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import pages_prefix
from textspot_ray.tables.commit.data_files import delete_pages

_LOG = logging.getLogger(__name__)
PAGES_AT_ONCE: Final = 64
_JOIN_S: Final = 10.0
_DIGEST_BYTES: Final = 32
_NO_ITEM: Final = Item("", "")


class DonePages:
    """Finished pages of a shard's long files.

    Args:
        store: The output folder.
        shard: That they belong to.
        fingerprint: Digest of the table's.
    """

    def __init__(self, store: Store, shard: Shard, fingerprint: str) -> None:
        self._store = store
        self._prefix = pages_prefix(shard.id, shard.generation)
        self._fingerprint = fingerprint
        self._held: dict[str, list[ImageResult]] = {}  # by key of the file
        self._putting: list[threading.Thread] = []
        self._found: dict[str, list[str]] | None = None  # paths by key

    def add(self, encoded: Encoded, result: ImageResult) -> None:
        """Take a finished page of a long file; several are put at once, in a thread."""
        if encoded.sha256 is None:
            return
        if result.error is not None and result.error.kind.transient:
            return  # it may pass, and is tried again with what is left
        key = _key(encoded, self._fingerprint)
        held = self._held.setdefault(key, [])
        held.append(replace(result, item=_NO_ITEM))
        if len(held) >= PAGES_AT_ONCE:
            del self._held[key]
            self._putting = [thread for thread in self._putting if thread.is_alive()]
            thread = threading.Thread(
                target=self._put, args=(key, held), name="done-pages", daemon=True
            )
            thread.start()
            self._putting.append(thread)

    def flush(self) -> None:
        """Put what is held: the shard is given up, and somebody else goes on with it."""
        while self._held:
            self._put(*self._held.popitem())
        for thread in self._putting:
            thread.join(_JOIN_S)

    def of(self, encoded: Encoded) -> Iterator[ImageResult]:
        """The pages of a file that are done already, each once, about in order."""
        if encoded.sha256 is None:
            return
        if self._found is None:
            self._found = self._list()
        seen: set[int] = set()
        for path in sorted(self._found.get(_key(encoded, self._fingerprint), ())):
            for result in self._read(path):
                if result.page not in seen:
                    seen.add(result.page)
                    yield replace(result, item=encoded.item)

    def drop(self) -> None:
        """Delete everything: the shard is committed. What stays is left to vacuum."""
        self._held.clear()
        for thread in self._putting:  # else the last ones would be put when all is deleted
            thread.join(_JOIN_S)
        with suppress(StorageError):
            delete_pages(self._store, [entry.path for entry in self._store.list(self._prefix)])

    def _list(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        try:
            for entry in self._store.list(self._prefix):
                key = entry.path.rpartition("/")[2].partition("-")[0]
                found.setdefault(key, []).append(entry.path)
        except StorageError as exc:
            _LOG.warning("pages done before are not known, and done again: %s", exc)
        return found

    def _read(self, path: str) -> list[ImageResult]:
        try:
            data = self._store.read(path)
            digest, packed = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if sha256(packed).digest() != digest:
                raise StorageError("its bytes have changed since it was written")
            return msgspec.msgpack.decode(packed, type=list[ImageResult])
        except (StorageError, FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            _LOG.warning("pages done before are done again: %s: %s", path, exc)
            return []

    def _put(self, key: str, results: list[ImageResult]) -> None:
        first = min(result.page for result in results)
        path = f"{self._prefix}{key}-{first:06d}-{secrets.token_hex(6)}.msgpack"
        try:
            packed = msgspec.msgpack.encode(results)
            self._store.put(path, sha256(packed).digest() + packed)
        except StorageError as exc:  # what is lost is some minutes' work, if the run is killed
            _LOG.warning("pages that are done could not be kept for a later run: %s", exc)


def _key(encoded: Encoded, fingerprint: str) -> str:
    text = "\0".join((encoded.item.image_id, str(encoded.sha256), fingerprint))
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]
