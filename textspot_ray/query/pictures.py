"""Images of a table, read again from their sources and scaled, for pages and exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import TextspotError
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.images.pixels import shrunk
from textspot_ray.query.pages import Page
from textspot_ray.query.source_roots import SourceRoots
from textspot_ray.records import ErrorKind, ImageError, Item, Stage
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.faults import RetryPolicy
from textspot_ray.tables.commit.ledger import stored_fingerprint
from textspot_ray.tables.ids import hash_ids
from textspot_ray.tables.plan.segment import SegmentFile, segment_seqs
from textspot_ray.tables.schema import item_id

if TYPE_CHECKING:
    from textspot_ray.storage.stores import Store

_MAX_PIXELS = 200_000_000
_MAX_BYTES = 1_000_000_000  # the run may have had a larger limit than the default
_JPEG_QUALITY = 82
_NOT_PLANNED = ImageError(
    Stage.READ,
    ErrorKind.MISSING,
    "the table's plan does not say where in its archive this image is",
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A scaled image as JPEG, or why there is none."""

    jpeg: bytes | None
    width: int
    height: int
    note: str = ""


class Pictures:
    """Reads images of one table from where they came from.

    Args:
        store: The table's folder; its plan says where members are in their archives.
        options: fsspec options by protocol, for the sources.
        source_roots: Where sources have moved to since they were read.
    """

    def __init__(
        self,
        store: Store,
        options: Mapping[str, Any] | None = None,
        source_roots: SourceRoots | None = None,
    ) -> None:
        self._store = store
        self._source_roots = source_roots or SourceRoots()
        config = SourceConfig(storage_options=dict(options or {}))
        # people wait for these: give up sooner than a run
        self._reader = Reader(
            config,
            ImageConfig(max_bytes=_MAX_BYTES),
            timeout_s=20,
            threads=4,
            retry=RetryPolicy(attempts=2),
        )

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close open archives."""
        self._reader.close()

    def scaled(
        self, pages: Sequence[Page], longest_px: int | None
    ) -> Iterator[tuple[Page, Picture]]:
        """Each page's picture, its longer side at most ``longest_px`` (None: as it is).

        If a picture cannot be read, its note says why.
        """
        for page, image, note in self.decoded(pages, longest_px):
            if image is None:
                yield page, Picture(None, page.width or 0, page.height or 0, note)
            else:
                yield page, encode_jpeg(image)

    def decoded(
        self, pages: Sequence[Page], longest_px: int | None = None
    ) -> Iterator[tuple[Page, NDArray[np.uint8] | None, str]]:
        """Each page's pixels (BGR), whole or scaled down to ``longest_px``, or None and why."""
        for page, _, found, note in self.opened(pages, longest_px):
            yield page, None if found is None else shrunk(found.image, longest_px), note

    def opened(
        self, pages: Sequence[Page], longest_px: int | None = None
    ) -> Iterator[tuple[Page, bytes, Decoded | None, str]]:
        """Each page's file and what it decodes to, or no bytes, None and why.

        Args:
            pages: Images of the table.
            longest_px: Longer side that is needed; the file may be decoded smaller.
        """
        items = self._items(pages)
        tiff_levels, pdf_dpi = self._page_rules()
        try:
            read = self._reader.read(items)
            for page, encoded in zip(pages, read, strict=True):
                if encoded.data is None:
                    yield page, b"", None, _reason(encoded.error)
                    continue
                fit = None
                if longest_px is not None and page.width and page.height:
                    share = min(1.0, longest_px / max(page.width, page.height))
                    fit = (round(page.width * share), round(page.height * share))
                found = decode(
                    encoded.data,
                    page=page.page,
                    max_pixels=_MAX_PIXELS,
                    fit=fit,
                    tiff_levels=tiff_levels,
                    pdf_dpi=pdf_dpi,
                )
                if isinstance(found, ImageError):
                    yield page, b"", None, _reason(found)
                else:
                    yield page, encoded.data, found, ""
        except TextspotError as exc:  # the storage cannot be reached at all
            raise type(exc)(f"cannot read the images of {self._store.uri}: {exc}") from exc

    def encoded(self, page: Page) -> tuple[bytes | None, str]:
        """The unchanged file, or None and why it cannot be read."""
        try:
            encoded = next(iter(self._reader.read(self._items([page]))))
        except TextspotError as exc:
            raise type(exc)(f"cannot read the images of {self._store.uri}: {exc}") from exc
        return encoded.data, "" if encoded.data is not None else _reason(encoded.error)

    def _page_rules(self) -> tuple[bool, int]:
        """Whether pyramid levels were read as pages, and the resolution of PDFs."""
        made_with = stored_fingerprint(self._store)
        dpi = made_with.get("pdf_dpi", "")
        return "tiff_levels" in made_with, int(dpi) if dpi.isdigit() else SourceConfig().pdf_dpi

    def _items(self, pages: Sequence[Page]) -> list[Item]:
        wanted = {item_id(page.image_id, page.page): page for page in pages}
        members = [key for key, page in wanted.items() if page.member is not None]
        planned = find_items(self._store, members)
        items = []
        for page in pages:
            key = item_id(page.image_id, page.page)
            items.append(self._moved(planned.get(key) or _file_item(key, page)))
        return items

    def _moved(self, item: Item) -> Item:
        """The item at its present place; a copy has another content tag."""
        source = self._source_roots.move(item.source)
        if source == item.source:
            return item
        return dataclasses.replace(item, source=source, content_tag=None)


def find_items(store: Store, image_ids: Sequence[str]) -> dict[str, Item]:
    """Planned items by id, the newest version of each; ids that no plan has are left out."""
    if not image_ids:
        return {}
    wanted, _ = hash_ids(image_ids)
    chosen = set(image_ids)
    found: dict[str, Item] = {}
    for seq in segment_seqs(store):
        segment = SegmentFile(store, seq)
        try:
            hashes, _, _ = segment.hashes()
            for row in np.flatnonzero(np.isin(hashes, wanted)):
                for item in segment.items(int(row), int(row) + 1):
                    if item.image_id in chosen:
                        found[item.image_id] = item
        finally:
            segment.close()
    return found


def encode_jpeg(image: NDArray[np.uint8]) -> Picture:
    """Pixels as a JPEG."""
    height, width = image.shape[:2]
    data = jpeg_bytes(image, _JPEG_QUALITY)
    return Picture(data, width, height, "" if data else "cannot encode the picture")


def jpeg_bytes(image: NDArray[np.uint8], quality: int) -> bytes | None:
    """Pixels as the bytes of a JPEG file; None where there are more than a JPEG can hold."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes() if done else None


def _file_item(image_id: str, page: Page) -> Item:
    return Item(
        image_id,
        page.source,
        size=page.bytes,
        content_tag=page.content_tag,
        error=None if page.member is None else _NOT_PLANNED,
    )


def _reason(error: ImageError | None) -> str:
    return "cannot be read" if error is None else f"{error.kind}: {error.message}"
