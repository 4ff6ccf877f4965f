"""The pages of a TIFF: a walk over its directories, far cheaper than a decoder's own seek."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from textspot_ray.images.headers import ORIENTATION_TAG, BrokenHeaderError, CutError

_NEW_SUBFILE_TYPE = 254
_WIDTH, _HEIGHT = 256, 257
_SUB_IFDS = 330
_DNG_VERSION = 50706
_REDUCED = 1  # bit 0 of NewSubfileType: a smaller copy of another page
_MASK = 4  # bit 2: a transparency mask
# BitsPerSample, StripOffsets, StripByteCounts, ColorMap, TileOffsets, TileByteCounts: an image
# cannot be decoded without them, and writers put them at the file's end.
_VITAL = frozenset({258, 273, 279, 320, 324, 325})
_BYTES = {1: 1, 3: 2, 4: 4, 16: 8}
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
MAX_DIRECTORIES = 100_000
_MAX_ENTRIES = 2_000_000  # in all directories: some twenty a page


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One directory: where it is and what it says of its image."""

    offset: int
    width: int
    height: int
    orientation: int
    subfile: int
    has_children: bool
    is_dng: bool
    orientation_at: int = 0
    orientation_type: int = 3


def tiff_pages(data: bytes) -> tuple[TiffPage, ...]:
    """All pages in file order; thumbnails, pyramid levels and masks are left out.

    Raises:
        CutError: A directory lies behind the end of the file.
        BrokenHeaderError: There is no directory, or there is no end of them.
    """
    if len(data) < 8:
        raise CutError("the file ends inside its header")
    layout = _Layout(data)
    pages: list[TiffPage] = []
    seen: set[int] = set()
    at = layout.first
    while at:
        if at in seen:
            raise BrokenHeaderError("the directories form a loop")
        if len(pages) >= MAX_DIRECTORIES:
            raise BrokenHeaderError(f"more than {MAX_DIRECTORIES} directories")
        seen.add(at)
        page, at = layout.read(at)
        pages.append(page)
    if not pages:
        raise BrokenHeaderError("no directory")
    return tuple(p for p in pages if not p.subfile & (_REDUCED | _MASK)) or (pages[0],)


def is_camera_raw(page: TiffPage) -> bool:
    """Whether the first directory is a camera's: a preview, with the sensor data in children."""
    return page.is_dng or bool(page.subfile & _REDUCED and page.has_children)


def isolate(data: bytes, page: TiffPage) -> bytes:
    """The same file with this page first and no orientation.

    Any decoder then reads that page without walking the others. Pillow turns TIFFs on its own,
    which its version decides; without the tag nobody but us does.
    """
    layout = _Layout(data)
    if layout.first == page.offset and page.orientation == 1:
        return data
    copy = bytearray(data)
    struct.pack_into(
        layout.order + ("Q" if layout.big else "I"), copy, 8 if layout.big else 4, page.offset
    )
    if page.orientation != 1:
        # The value field is left-justified: zero it whole, then write a one of the entry's type.
        at, kind = page.orientation_at, page.orientation_type
        copy[at : at + 4] = bytes(4)
        struct.pack_into(layout.order + _TYPES[kind], copy, at, 1)
    return bytes(copy)


class _Layout:
    """Byte order and field widths of a classic or a big TIFF."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = self._int("H", 2) == 43
        self._entries = 0
        self.first = self._int("Q", 8) if self.big else self._int("I", 4)

    def read(self, at: int) -> tuple[TiffPage, int]:
        """The directory at an offset, and the offset of the next (0: none)."""
        count = self._int("Q" if self.big else "H", at)
        entry_bytes = 20 if self.big else 12
        start = at + (8 if self.big else 2)
        stop = start + count * entry_bytes
        self._entries += count
        if count > 65_535 or self._entries > _MAX_ENTRIES:
            raise BrokenHeaderError("a directory with an impossible number of entries")
        values: dict[int, int] = {}
        orientation_at, orientation_type = 0, 3
        for entry in range(start, stop, entry_bytes):
            tag = self._int("H", entry)
            if tag in (_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, ORIENTATION_TAG):
                kind = self._int("H", entry + 2)
                if kind in _TYPES:
                    where = entry + (12 if self.big else 8)
                    values[tag] = self._int(_TYPES[kind], where)
                    if tag == ORIENTATION_TAG:
                        orientation_at, orientation_type = where, kind
            elif tag in _VITAL:
                self._check_value(entry)
            elif tag in (_SUB_IFDS, _DNG_VERSION):
                values[tag] = 1
        after = self._int("Q" if self.big else "I", stop)
        orientation = values.get(ORIENTATION_TAG, 1)
        page = TiffPage(
            at,
            values.get(_WIDTH, 0),
            values.get(_HEIGHT, 0),
            orientation if 1 <= orientation <= 8 else 1,
            values.get(_NEW_SUBFILE_TYPE, 0),
            _SUB_IFDS in values,
            _DNG_VERSION in values,
            orientation_at,
            orientation_type,
        )
        return page, after

    def _check_value(self, entry: int) -> None:
        count = self._int("Q" if self.big else "I", entry + 4)
        size = count * _BYTES.get(self._int("H", entry + 2), 1)
        at = entry + (12 if self.big else 8)
        if size > (8 if self.big else 4):
            at = self._int("Q" if self.big else "I", at)
        if at + size > len(self.data):
            raise CutError("the file ends before the tables of its directory")

    def _int(self, width: str, at: int) -> int:
        size = struct.calcsize(width)
        if at + size > len(self.data):
            raise CutError("the file ends before its directory of pages")
        return int(struct.unpack_from(self.order + width, self.data, at)[0])
