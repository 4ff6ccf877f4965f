"""The pages of a TIFF: a walk over its directories, far cheaper than a decoder's own seek."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from textspot_ray.images.headers import ORIENTATION_TAG, BrokenHeaderError, CutError
from textspot_ray.storage.raw_file import RawFile

_NEW_SUBFILE_TYPE = 254
_OLD_SUBFILE_TYPE = 255
_WIDTH, _HEIGHT = 256, 257
_SUB_IFDS = 330
_DNG_VERSION = 50706
_REDUCED = 1  # bit 0 of NewSubfileType: a smaller copy of another page
_MASK = 4  # bit 2: a transparency mask
_OLD_REDUCED = 2
# BitsPerSample, StripOffsets, StripByteCounts, ColorMap, TileOffsets, TileByteCounts: an image
# cannot be decoded without them, and writers put them at the file's end.
_VITAL = frozenset({258, 273, 279, 320, 324, 325})
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8, 13: 4, 16: 8, 18: 8}
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Values of tag 259, as they stand in files: several numbers mean the same.
RAW, LZW, OLD_JPEG, PACKBITS, LZMA, ZSTD = 1, 5, 6, 32773, 34925, 50000
DEFLATES = frozenset({8, 32946})
JPEGS = frozenset({OLD_JPEG, 7, 33007, 34892})
APERIO_YCBCR, JPEG2000_LOSSY, APERIO_RGB = 33003, 33004, 33005
JPEG2000S = frozenset({APERIO_YCBCR, JPEG2000_LOSSY, APERIO_RGB, 34712})
JBIGS = frozenset({9, 10, 34661})
WEBPS, JPEGXLS = frozenset({34927, 50001}), frozenset({50002, 52546})
PNG, JPEGXR = 34933, 34934
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


@dataclass(frozen=True, slots=True)
class TiffFault:
    """Why the directories end where they should not."""

    cut: bool
    message: str


@dataclass(frozen=True, slots=True)
class TiffChain:
    """The pages up to the end, or up to the first directory that cannot be read."""

    pages: tuple[TiffPage, ...]
    fault: TiffFault | None = None


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """How the pixels of one page are stored (TIFF 6.0; tag numbers in brackets).

    Attributes:
        compression: [259]; 1 if absent.
        bits: Bits of each sample [258].
        samples: Samples per pixel [277].
        photometric: [262]; None if absent.
        planar: Samples in planes of their own [284] rather than side by side.
        sample_format: [339]: 1 unsigned, 2 signed, 3 float, 5 and 6 complex.
        extra: Meaning of samples behind the colours [338]: 1 premultiplied, 2 plain alpha.
        segments: (offset, bytes) of strips or tiles in file order.
        jpeg_stream: (offset, bytes) of an old-style JPEG stream [513, 514].
        ink_set: [332]; 1 is CMYK.
        big_endian: Byte order of samples.
        segment_rows, segment_columns: Size of a strip or tile.
        predictor: [317]; 1 is none.
        low_bit_first: The bits of each stored byte are in reverse order [266].
        jpeg_tables: Tables that the JPEG streams of strips share [347].
    """

    compression: int
    bits: tuple[int, ...]
    samples: int
    photometric: int | None
    planar: bool
    sample_format: int
    extra: tuple[int, ...]
    segments: tuple[tuple[int, int], ...] = field(repr=False, default=())
    jpeg_stream: tuple[int, int] | None = None
    ink_set: int = 1
    big_endian: bool = False
    segment_rows: int = 0
    segment_columns: int = 0
    jpeg_tables: bytes = b""
    predictor: int = 1
    low_bit_first: bool = False


def tiff_chain(data: bytes, *, all_levels: bool = False) -> TiffChain:
    """All pages in file order; thumbnails, pyramid levels and masks are left out.

    Args:
        data: The file.
        all_levels: Keep the directories that are marked as smaller copies.

    Raises:
        CutError: The first directory lies behind the end of the file.
        BrokenHeaderError: There is no directory, or no end of them.
    """
    if len(data) < 8:
        raise CutError("the file ends inside its header")
    layout = _Layout(data)
    pages: list[TiffPage] = []
    seen: set[int] = set()
    fault: TiffFault | None = None
    at = layout.first
    while at:
        if at in seen:
            fault = TiffFault(False, "the directories form a loop")
            break
        if len(pages) >= MAX_DIRECTORIES:
            raise BrokenHeaderError(f"more than {MAX_DIRECTORIES} directories")
        seen.add(at)
        try:
            page, following = layout.read(at)
        except (CutError, BrokenHeaderError) as exc:
            if not pages:
                raise
            fault = TiffFault(isinstance(exc, CutError), str(exc))
            break
        pages.append(page)
        if following is None:
            fault = TiffFault(True, "the file ends before it says whether there are more pages")
            break
        at = following
    if not pages:
        raise BrokenHeaderError("no directory")
    hidden = 0 if all_levels else _REDUCED
    kept = tuple(p for p in pages if not p.subfile & (hidden | _MASK))
    return TiffChain(kept or (pages[0],), fault)


def without_levels(
    pages: tuple[TiffPage, ...], same: Callable[[TiffPage, TiffPage], bool]
) -> tuple[TiffPage, ...]:
    """Leave out pages that show what a larger page before or behind them shows.

    ImageMagick's pyramids and slide scanners' thumbnails do not mark their smaller copies. One
    is known by its size, the other's divided by at least 1.5 in both directions, and then by its
    content.

    Args:
        pages: In file order.
        same: Decodes two pages and says whether they show the same; asked some tens of times a
            file at most.
    """
    kept: list[TiffPage] = []
    group: list[TiffPage] = []  # what shows the same as the last page kept, smallest first
    asked = 0
    for page in pages:
        larger = next((p for p in group if _may_be_level(page, p)), None)
        smaller = group[-1] if group and _may_be_level(group[-1], page) else None
        near = larger or smaller
        if near is not None and asked < _MAX_COMPARISONS:
            asked += 1
            if same(page, near):
                group = sorted((*group, page), key=lambda p: p.width)
                if smaller is not None:  # the smaller one came first
                    kept[-1] = page
                continue
        kept.append(page)
        group = [page]
    return tuple(kept)


_MAX_COMPARISONS = 32


def _may_be_level(small: TiffPage, large: TiffPage) -> bool:
    if not (small.width and small.height) or large.width < 1.5 * small.width:
        return False
    factor = large.width / small.width
    return large.height >= 1.5 * small.height and abs(large.height / factor - small.height) <= 1.5


def is_camera_raw(page: TiffPage) -> bool:
    """Whether the first directory is a camera's: a preview, with the sensor data in children."""
    return page.is_dng or bool(page.subfile & _REDUCED and page.has_children)


def compression_name(number: int) -> str:
    """What tifffile calls a value of tag 259, for messages."""
    from tifffile import COMPRESSION

    try:
        return str(COMPRESSION(number).name).replace("_", " ")
    except ValueError:
        return "unknown"


def layout_of(data: bytes, page: TiffPage) -> TiffLayout:
    """How the pixels of a page are stored.

    Raises:
        CutError: A table of the directory, or image data, lie behind the end of the file.
    """
    return _Layout(data).describe(page)


class OnePageFile(RawFile):
    """The same file with one page first and no orientation, without a copy of it.

    Any decoder then reads that page without walking the others. Pillow turns TIFFs on its own,
    which its version decides; without the tag nobody but us does.
    """

    def __init__(self, data: bytes, page: TiffPage) -> None:
        super().__init__()
        layout = _Layout(data)
        self._data = memoryview(data)
        where, width = (8, "Q") if layout.big else (4, "I")
        patches = [(where, struct.pack(layout.order + width, page.offset))]
        if page.orientation != 1:
            # The value field is left-justified: zero it whole, then a one of the entry's type.
            one = struct.pack(layout.order + _TYPES[page.orientation_type], 1)
            patches.append((page.orientation_at, one.ljust(4, b"\0")))
        self._patches = patches

    def end(self) -> int:
        """Bytes of the file."""
        return len(self._data)

    def fill(self, view: memoryview, at: int) -> int:
        """As `RawFile` has it."""
        part = self._data[at : at + len(view)]
        stop = at + len(part)
        view[: len(part)] = part
        for place, value in self._patches:
            first, last = max(place, at), min(place + len(value), stop)
            if first < last:
                view[first - at : last - at] = value[first - place : last - place]
        return len(part)


class _Layout:
    """Byte order and field widths of a classic or a big TIFF."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = self._int("H", 2) == 43
        self._entries = 0
        self.first = self._int("Q", 8) if self.big else self._int("I", 4)

    def read(self, at: int) -> tuple[TiffPage, int | None]:
        """The directory at an offset, and the offset of the next (0: none; None: not there)."""
        start, stop, entry_bytes = self._bounds(at)
        values: dict[int, int] = {}
        orientation_at, orientation_type = 0, 3
        for entry in range(start, stop, entry_bytes):
            tag = self._int("H", entry)
            if tag in (_NEW_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, ORIENTATION_TAG):
                kind = self._int("H", entry + 2)
                if kind in _TYPES:
                    where = entry + (12 if self.big else 8)
                    values[tag] = self._int(_TYPES[kind], where)
                    if tag == ORIENTATION_TAG:
                        orientation_at, orientation_type = where, kind
            elif tag in _VITAL:
                self._place(entry)
            elif tag in (_SUB_IFDS, _DNG_VERSION):
                values[tag] = 1
        try:
            after = self._int("Q" if self.big else "I", stop)
        except CutError:
            after = None
        orientation = values.get(ORIENTATION_TAG, 1)
        subfile = values.get(_NEW_SUBFILE_TYPE, 0)
        if values.get(_OLD_SUBFILE_TYPE) == _OLD_REDUCED:
            subfile |= _REDUCED
        page = TiffPage(
            at,
            values.get(_WIDTH, 0),
            values.get(_HEIGHT, 0),
            orientation if 1 <= orientation <= 8 else 1,
            subfile,
            _SUB_IFDS in values,
            _DNG_VERSION in values,
            orientation_at,
            orientation_type,
        )
        return page, after

    def describe(self, page: TiffPage) -> TiffLayout:
        start, stop, entry_bytes = self._bounds(page.offset)
        entries: dict[int, int] = {}
        for entry in range(start, stop, entry_bytes):
            entries.setdefault(self._int("H", entry), entry)

        def values(tag: int) -> tuple[int, ...]:
            return self._values(entries[tag]) if tag in entries else ()

        def one(tag: int, default: int) -> int:
            return (values(tag) or (default,))[0]

        samples = one(277, 1)
        bits = values(258) or (1,)
        offsets = values(324) or values(273)
        counts = values(325) or values(279)
        tiled = 322 in entries
        stream = (one(513, 0), one(514, 0)) if 513 in entries else None
        return TiffLayout(
            compression=one(259, 1),
            bits=bits if len(bits) > 1 else bits * min(samples, 64),
            samples=samples,
            photometric=one(262, 0) if 262 in entries else None,
            planar=one(284, 1) == 2 and samples > 1,
            sample_format=one(339, 1),
            extra=values(338),
            segments=tuple(zip(offsets, counts, strict=False)),
            jpeg_stream=stream,
            ink_set=one(332, 1),
            big_endian=self.order == ">",
            segment_rows=one(323, 0) if tiled else min(one(278, page.height), page.height),
            segment_columns=one(322, 0) if tiled else page.width,
            predictor=one(317, 1),
            low_bit_first=one(266, 1) == 2,
            jpeg_tables=bytes(v & 0xFF for v in values(347)),
        )

    def _bounds(self, at: int) -> tuple[int, int, int]:
        count = self._int("Q" if self.big else "H", at)
        entry_bytes = 20 if self.big else 12
        start = at + (8 if self.big else 2)
        self._entries += count
        if count > 65_535 or self._entries > _MAX_ENTRIES:
            raise BrokenHeaderError("a directory with an impossible number of entries")
        return start, start + count * entry_bytes, entry_bytes

    def _values(self, entry: int) -> tuple[int, ...]:
        kind = self._int("H", entry + 2)
        if kind == 7:
            kind = 1
        if kind not in _TYPES:
            return ()
        count, at = self._place(entry)
        return struct.unpack_from(f"{self.order}{count}{_TYPES[kind]}", self.data, at)

    def _place(self, entry: int) -> tuple[int, int]:
        """How many values an entry has, and where they begin.

        Raises:
            CutError: The file ends before them.
        """
        count = self._int("Q" if self.big else "I", entry + 4)
        size = count * _BYTES.get(self._int("H", entry + 2), 1)
        at = entry + (12 if self.big else 8)
        if size > (8 if self.big else 4):
            at = self._int("Q" if self.big else "I", at)
        if at + size > len(self.data):
            raise CutError("the file ends before the tables of its directory")
        return count, at

    def _int(self, width: str, at: int) -> int:
        size = struct.calcsize(width)
        if at + size > len(self.data):
            raise CutError("the file ends before its directory of pages")
        return int(struct.unpack_from(self.order + width, self.data, at)[0])
