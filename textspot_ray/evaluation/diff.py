"""Comparison of two tables of the same images: words gained, lost or changed, and confidence.

Two words are at the same place if the IoU of their upright boxes is above one half; pairs are
assigned one to one, best overlap first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from textspot_ray.errors import UsageError
from textspot_ray.query.pages import Page, PageWord, read_pages
from textspot_ray.query.views import TableViews
from textspot_ray.spotting.geometry import box_ious, one_to_one

SAME_PLACE_IOU = 0.5
_SHIFT_EDGES = (-1.0, -0.3, -0.1, -0.03, -0.01, 0.01, 0.03, 0.1, 0.3, 1.0)


class Change(StrEnum):
    """How a word differs from A to B."""

    SAME = "same"
    CHANGED = "changed"  # another text at the same place
    LOST = "lost"
    GAINED = "gained"


@dataclass(frozen=True, slots=True)
class WordPair:
    """A word of A, of B, or of both."""

    change: Change
    a: PageWord | None
    b: PageWord | None


@dataclass(frozen=True, slots=True)
class PagePair:
    """An image of both tables."""

    a: Page
    b: Page
    words: tuple[WordPair, ...]

    @property
    def differences(self) -> int:
        """Words that are not the same."""
        return sum(pair.change is not Change.SAME for pair in self.words)


@dataclass(slots=True)
class DiffSummary:
    """Sums over all images.

    Attributes:
        images: In both tables.
        only_a: Images in A only.
        only_b: Images in B only.
        differing: Images with any difference.
        status: Images by their status in A and B where that differs.
        words: Words by change.
        changes: Texts of A and B of changed words, with counts.
        shift_sum: Of the text confidence of same words, B minus A.
        shift_bins: Same words by shift, between `_SHIFT_EDGES`.
    """

    images: int = 0
    only_a: int = 0
    only_b: int = 0
    differing: int = 0
    status: Counter[tuple[str, str]] = field(default_factory=Counter)
    words: Counter[Change] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    shift_sum: float = 0.0
    shift_bins: list[int] = field(default_factory=lambda: [0] * (len(_SHIFT_EDGES) - 1))

    def add(self, pair: PagePair) -> None:
        """Count an image."""
        self.images += 1
        self.differing += pair.differences > 0
        if pair.a.status != pair.b.status:
            self.status[(pair.a.status, pair.b.status)] += 1
        for word in pair.words:
            self.words[word.change] += 1
            if word.a is None or word.b is None:
                continue
            if word.change is Change.CHANGED:
                self._count_change(word.a.text, word.b.text)
            else:
                shift = word.b.text_confidence - word.a.text_confidence
                self.shift_sum += shift
                self.shift_bins[_shift_bin(shift)] += 1

    @property
    def mean_shift(self) -> float:
        """Mean change of confidence of same words."""
        same = self.words[Change.SAME]
        return self.shift_sum / same if same else 0.0

    def shifts(self) -> list[tuple[str, int]]:
        """Bins of confidence shift and their words."""
        return [
            (f"{low:+g} to {high:+g}", count)
            for low, high, count in zip(
                _SHIFT_EDGES, _SHIFT_EDGES[1:], self.shift_bins, strict=False
            )
        ]

    def _count_change(self, a: str, b: str) -> None:
        self.changes[(a, b)] += 1
        if len(self.changes) > 200_000:  # drop rare ones, so that memory stays bounded
            self.changes = Counter(dict(self.changes.most_common(100_000)))


def compare_tables(
    a: TableViews, b: TableViews, min_confidence: float | None, summary: DiffSummary
) -> Iterator[PagePair]:
    """Images of both tables with their words paired; ``summary`` is updated while iterating.

    Both tables are read once, side by side. Images are held in memory only where the order differs.

    Args:
        a: The one table.
        b: The other.
        min_confidence: Words below are left out; None: each table's text threshold.
        summary: Updated with each pair.

    Raises:
        UsageError: The tables have no image in common.
    """
    waiting_a: dict[str, Page] = {}
    waiting_b: dict[str, Page] = {}
    pages_a = read_pages(a, min_confidence=min_confidence)
    pages_b = read_pages(b, min_confidence=min_confidence)
    while True:
        page_a, page_b = next(pages_a, None), next(pages_b, None)
        if page_a is None and page_b is None:
            break
        if page_a is not None:
            waiting_a[page_a.image_id] = page_a
        if page_b is not None:
            waiting_b[page_b.image_id] = page_b
        for page in (page_a, page_b):
            if page is None:
                continue
            key = page.image_id
            if key in waiting_a and key in waiting_b:
                pair = pair_pages(waiting_a.pop(key), waiting_b.pop(key))
                summary.add(pair)
                yield pair
    summary.only_a, summary.only_b = len(waiting_a), len(waiting_b)
    if summary.images == 0 and (waiting_a or waiting_b):
        raise UsageError(
            f"{a.uri} and {b.uri} have no image in common: image ids must be equal "
            "(run with --base to make them so over different mounts)"
        )


def pair_pages(a: Page, b: Page) -> PagePair:
    """Pair the words of one image."""
    places = one_to_one(_overlaps(a.words, b.words))
    used_a, used_b = {n for n, _ in places}, {m for _, m in places}
    pairs = []
    for n, m in places:
        same = a.words[n].text == b.words[m].text
        pairs.append(WordPair(Change.SAME if same else Change.CHANGED, a.words[n], b.words[m]))
    pairs += [WordPair(Change.LOST, w, None) for n, w in enumerate(a.words) if n not in used_a]
    pairs += [WordPair(Change.GAINED, None, w) for m, w in enumerate(b.words) if m not in used_b]
    return PagePair(a, b, tuple(pairs))


def _overlaps(a: tuple[PageWord, ...], b: tuple[PageWord, ...]) -> list[tuple[int, int]]:
    """Pairs of indexes at the same place: largest overlap first, equal texts first of equals."""
    if not a or not b:
        return []
    iou = box_ious([word.box for word in a], [word.box for word in b])
    found = [(int(n), int(m)) for n, m in np.argwhere(iou > SAME_PLACE_IOU)]
    return sorted(found, key=lambda p: (-round(float(iou[p]), 6), a[p[0]].text != b[p[1]].text, p))


def _shift_bin(shift: float) -> int:
    return next(
        (n for n, high in enumerate(_SHIFT_EDGES[1:]) if shift < high), len(_SHIFT_EDGES) - 2
    )
