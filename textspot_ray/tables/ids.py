"""Image ids as 128-bit hashes, and an index over millions of them in plain arrays.

At 28 bytes per id, ten million planned items take 280 MB, where a Python set of their names would
take some 2 GB. 128 bits make a collision (a lost image) less likely than a broken disk: for a
billion ids the chance of any is 1.5e-21.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from textspot_ray.tables.schema import to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U64 = NDArray[np.uint64]
    I64 = NDArray[np.int64]


def hash_ids(ids: Iterable[str | bytes]) -> tuple[U64, U64]:
    """High and low 64 bits of each id's hash."""
    digests = b"".join(
        blake2b(to_bytes(i) if isinstance(i, str) else i, digest_size=16).digest() for i in ids
    )
    pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def hash_tags(tags: Iterable[str | None]) -> U64:
    """A 64-bit hash of each content tag; 0 stands for no tag and for nothing else."""
    values = [
        0 if tag is None else int.from_bytes(blake2b(to_bytes(tag), digest_size=8).digest()) or 1
        for tag in tags
    ]
    return np.array(values, dtype=np.uint64)


class _Run:
    """Hashes sorted by their high half."""

    __slots__ = ("hi", "lo", "ordinal")

    def __init__(self, hi: U64, lo: U64, ordinal: NDArray[np.uint32]) -> None:
        order = np.argsort(hi, kind="stable")
        self.hi, self.lo, self.ordinal = hi[order], lo[order], ordinal[order]

    def find(self, hi: U64, lo: U64, found: I64) -> None:
        """Set ``found`` to the ordinal of each hash in this run."""
        size = len(self.hi)
        at = np.searchsorted(self.hi, hi)
        open_ = np.flatnonzero((found < 0) & (at < size))
        while len(open_):  # a second round only where two ids share their high 64 bits
            here = at[open_]
            same_hi = self.hi[here] == hi[open_]
            hit = same_hi & (self.lo[here] == lo[open_])
            found[open_[hit]] = self.ordinal[here[hit]]
            open_ = open_[same_hi & ~hit]
            at[open_] += 1
            open_ = open_[at[open_] < size]


class IdIndex:
    """Ordinal (order of arrival) and content tag of every known id.

    Sorted runs are merged when they are of similar size, so adding n ids costs O(n log n).
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._tags = np.zeros(1024, dtype=np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, hi: U64, lo: U64, tags: U64 | None = None) -> None:
        """Append ids that are not known yet; they get the next ordinals, in order.

        Args:
            hi: High halves of the hashes.
            lo: Low halves.
            tags: Hashes of the content tags; None for none.
        """
        n = len(hi)
        if n == 0:
            return
        end = self._size + n
        if end > len(self._tags):
            grown = np.zeros(max(end, len(self._tags) * 3 // 2), dtype=np.uint64)
            grown[: self._size] = self._tags[: self._size]
            self._tags = grown
        if tags is not None:
            self._tags[self._size : end] = tags
        self._runs.append(_Run(hi, lo, np.arange(self._size, end, dtype=np.uint32)))
        self._size = end
        while len(self._runs) > 1 and len(self._runs[-2].hi) < 2 * len(self._runs[-1].hi):
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(
                _Run(
                    np.concatenate((before.hi, last.hi)),
                    np.concatenate((before.lo, last.lo)),
                    np.concatenate((before.ordinal, last.ordinal)),
                )
            )

    def find(self, hi: U64, lo: U64) -> I64:
        """Ordinal of each id, -1 where it is not known."""
        found = np.full(len(hi), -1, dtype=np.int64)
        for run in self._runs:
            run.find(hi, lo, found)
        return found

    def tags(self, ordinals: I64) -> U64:
        """Hash of the newest content tag of each id."""
        return self._tags[ordinals]

    def set_tags(self, ordinals: I64, tags: U64) -> None:
        """Note newer content tags."""
        self._tags[ordinals] = tags
