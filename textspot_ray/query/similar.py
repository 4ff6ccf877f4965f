"""Images that look alike though their bytes differ: scaled, saved again, made lighter.

Each picture is read again and compared by its perceptual hash: 64 bits of the low frequencies of
its cosine transform (`imagehash.phash`). Two pictures look alike if few bits differ; pages of text
on white look more alike than photos.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textspot_ray.errors import MissingExtraError
from textspot_ray.query.pages import Page, read_pages
from textspot_ray.query.pictures import Pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from textspot_ray.query.views import TableViews

MAX_BITS = 3  # two of four bands of 16 bits may differ in three bits at most: one is equal
_BANDS = 4
_BAND_BITS = 16
_AT_A_TIME = 32
_LOOKED_AT_PX = 256  # the hash shrinks a picture to 32 x 32


@dataclass(frozen=True, slots=True)
class SimilarGroup:
    """Images that look alike, by id."""

    image_ids: tuple[str, ...]


def similar_images(tables: TableViews, pictures: Pictures) -> tuple[SimilarGroup, ...]:
    """Groups of images that look like another image of their group, the largest group first.

    Args:
        tables: The table.
        pictures: Where its pictures are read from; those that cannot be read are left out.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    return groups_of(dict(_hashes(tables, pictures)))


def groups_of(hashes: Mapping[str, int]) -> tuple[SimilarGroup, ...]:
    """Groups of ids whose 64-bit hashes differ in at most `MAX_BITS` bits, one from the next."""
    near = _Joined()
    for band in range(_BANDS):
        buckets: dict[int, list[str]] = defaultdict(list)
        for name, value in hashes.items():
            buckets[value >> band * _BAND_BITS & (1 << _BAND_BITS) - 1].append(name)
        for bucket in buckets.values():
            kept: list[str] = []  # one of each value: copies of it are near by themselves
            firsts: dict[int, str] = {}
            for name in bucket:
                first = firsts.setdefault(hashes[name], name)
                if first is name:
                    kept.append(name)
                else:
                    near.join(first, name)
            for a, b in itertools.combinations(kept, 2):
                if (hashes[a] ^ hashes[b]).bit_count() <= MAX_BITS:
                    near.join(a, b)
    return tuple(SimilarGroup(group) for group in near.groups())


def phash(image: NDArray[np.uint8]) -> int:
    """The 64-bit perceptual hash of H x W x 3 BGR pixels.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    try:
        import imagehash
    except ImportError as exc:
        raise MissingExtraError("looking for similar images", "similar") from exc
    from PIL import Image

    return int(str(imagehash.phash(Image.fromarray(image[:, :, ::-1].copy()))), 16)


def _hashes(tables: TableViews, pictures: Pictures) -> Iterator[tuple[str, int]]:
    pages = (page for page in read_pages(tables) if page.status != "failed")
    while some := list(itertools.islice(pages, _AT_A_TIME)):
        found: Iterator[tuple[Page, NDArray[np.uint8] | None, str]]
        found = pictures.decoded(some, _LOOKED_AT_PX)
        for page, image, _ in found:
            if image is not None:
                yield page.image_id, phash(image)


class _Joined:
    """Sets that grow together (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def _top(self, name: str) -> str:
        while (above := self._above.setdefault(name, name)) != name:
            self._above[name] = name = self._above[above]
        return name

    def join(self, a: str, b: str) -> None:
        """Make their sets one."""
        self._above[self._top(b)] = self._top(a)

    def groups(self) -> list[tuple[str, ...]]:
        """The sets, the largest first, each sorted."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._above:
            found[self._top(name)].append(name)
        groups = [tuple(sorted(names)) for names in found.values()]
        return sorted(groups, key=lambda names: (-len(names), names))
