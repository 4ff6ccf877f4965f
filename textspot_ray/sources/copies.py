"""Copies: files of a listing whose bytes are those of an earlier one, whatever they are called.

They are recognised by the sha256 of what is read, so that a photo in a folder and the same one in
a zip are one. Every file is read for it, once more than for spotting it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.identity import IdMap, Taken
from textspot_ray.sources.reader import Reader

DUPLICATE = "duplicate"
_AT_A_TIME = 64  # read side by side; nothing else of a listing waits


def without_copies(
    listing: Iterable[Item | Skipped], config: SourceConfig, image: ImageConfig
) -> Iterator[Item | Skipped]:
    """A listing in which all files of one content but the first are skipped.

    What cannot be read stays in: its error is reported when its turn comes. Takes some 24 bytes per
    file.

    Args:
        listing: Items, and what was found and skipped.
        config: How items are reached.
        image: For the largest file.
    """
    known = IdMap()
    batch: list[Item] = []
    with Reader(config, image) as reader:
        for entry in listing:
            if isinstance(entry, Skipped):
                yield entry
                continue
            batch.append(entry)
            if len(batch) == _AT_A_TIME:
                yield from _first_ones(batch, reader, known)
                batch.clear()
        yield from _first_ones(batch, reader, known)


def _first_ones(batch: list[Item], reader: Reader, known: IdMap) -> Iterator[Item | Skipped]:
    """Items in their order, copies as skipped."""
    read = reader.read([item for item in batch if item.error is None])
    for item in batch:
        sha256 = None if item.error is not None else next(read).sha256
        if sha256 is None or known.take(sha256) is Taken.NEW:
            yield item
        else:
            yield Skipped(item.image_id, DUPLICATE)
