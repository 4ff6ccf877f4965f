"""A set of ids at some twelve bytes each, for archives of tens of millions of images."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_FIRST_SLOTS = 1 << 10
_MAX_LOAD = 0.67


class IdSet:
    """Remembers ids by 64-bit hashes, in one flat table with open addressing.

    Two different ids are taken for one with a chance of n²/2⁶⁵: 3·10⁻⁶ for ten million.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * _FIRST_SLOTS))
        self._mask = _FIRST_SLOTS - 1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, image_id: str) -> bool:
        """Add an id; False if it was there."""
        digest = blake2b(image_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        key = int.from_bytes(digest, "little") or 1  # zero marks an empty slot
        if not self._insert(self._table, self._mask, key):
            return False
        self._count += 1
        if self._count > _MAX_LOAD * (self._mask + 1):
            self._grow()
        return True

    @staticmethod
    def _insert(table: array[int], mask: int, key: int) -> bool:
        at = key & mask
        while (held := table[at]) != 0:
            if held == key:
                return False
            at = (at + 1) & mask
        table[at] = key
        return True

    def _grow(self) -> None:
        slots = 2 * (self._mask + 1)
        table, mask = array("Q", bytes(8 * slots)), slots - 1
        for key in self._table:
            if key:
                self._insert(table, mask, key)
        self._table, self._mask = table, mask


class RepeatedNames:
    """Numbers names that come again: ``a``, ``a~2``, ``a~3``."""

    def __init__(self) -> None:
        self._seen = IdSet()
        self._repeats: dict[str, int] = {}

    def name(self, name: str) -> str:
        """The name, with a number unless it is the first of its kind."""
        if self._seen.add(name):
            return name
        self._repeats[name] = self._repeats.get(name, 1) + 1
        return f"{name}~{self._repeats[name]}"


class UserIds:
    """Ids from a column of the user's: one id for two images becomes two ids.

    The same image twice under the same id stays one id, so that it counts as listed twice.
    """

    def __init__(self) -> None:
        self._names = RepeatedNames()
        self._pairs = IdSet()

    def name(self, given: str, uri: str) -> str:
        """The id of the image at a URI."""
        return self._names.name(given) if self._pairs.add(f"{given}\0{uri}") else given
