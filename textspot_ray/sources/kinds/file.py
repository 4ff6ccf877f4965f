"""Single image files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textspot_ray.images.formats import is_image_head
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.kinds.base import Kind, Source, Whole
from textspot_ray.sources.uris import file_name

if TYPE_CHECKING:
    from textspot_ray.sources.listing import Lister


class FileKind(Kind):
    """A file that is one image; its pages, if it has several, are the decoder's to find."""

    label = "image"

    def recognises(self, head: bytes) -> bool:
        return is_image_head(head)

    def list(self, source: Source, lister: Lister) -> Iterator[Item | Skipped]:
        if source.is_named and source.row is None:
            reason = lister.selection.filtered(file_name(source.protocol, source.path))
            if reason is not None:
                yield Skipped(lister.uri(source), reason)
                return
        lister.check_url(source)
        info = source.info
        yield Item(
            image_id=lister.item_id(source),
            source=lister.uri(source),
            size=info.size if info else None,
            content_tag=info.tag if info else None,
            extra=source.row.extra if source.row else None,
        )


FileKind.access = {"file": Whole()}
