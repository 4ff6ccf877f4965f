"""Copies: files of a listing whose bytes are those of an earlier one, whatever they are called.

They are told by the sha256 of what is read, so that a photo in a folder and the same one in a zip
are one. Every file is read for it, once more than for spotting it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.identity import IdMap, Taken
from textspot_ray.sources.reader import Reader

DUPLICATE = "duplicate"


def without_copies(
    listing: Iterable[Item | Skipped], config: SourceConfig, image: ImageConfig
) -> Iterator[Item | Skipped]:
    """A listing in which all files of one content but the first are skipped.

    What cannot be read stays in: its fault is told when it is spotted. Some 24 bytes a file.

    Args:
        listing: Items, and what was listed but is none.
        config: How items are reached.
        image: For the largest file.
    """
    known = IdMap()
    waiting: deque[Item | Skipped] = deque()

    def items() -> Iterator[Item]:
        for entry in listing:
            waiting.append(entry)
            if isinstance(entry, Item) and entry.error is None:
                yield entry

    with Reader(config, image) as reader:
        for encoded in reader.read(items()):
            while waiting[0] is not encoded.item:
                yield waiting.popleft()
            item = waiting.popleft()
            first = encoded.sha256 is None or known.take(encoded.sha256) is Taken.NEW
            yield item if first else Skipped(encoded.item.image_id, DUPLICATE)
        yield from waiting
