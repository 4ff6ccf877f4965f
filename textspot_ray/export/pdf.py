"""Searchable PDF: each picture on a page, with its words as invisible text at their positions.

Words are set in a font with empty glyphs, all half as wide as high, stretched to the word's box.
Its character codes are Unicode's, so that text of any script can be searched, selected and copied.
Tesseract's and OCRmyPDF's text layers work in the same way.
"""

from __future__ import annotations

import functools
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.export.jpeg_stream import plain_jpeg
from textspot_ray.export.layout import PageLayout
from textspot_ray.export.names import FileNames, is_folder
from textspot_ray.export.pixels import PixelExport
from textspot_ray.query.destination import Folder, open_binary
from textspot_ray.query.pages import PageWord
from textspot_ray.query.pictures import jpeg_bytes

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded

_JPEG_QUALITY = 90
_POINTS_PER_PIXEL = 0.48  # 150 dots per inch
_MAX_POINTS = 14_400  # of a side, PDF 32000-1 annex C
_MAX_BYTES = 2**30  # of pictures in one file, which is made in memory
_SPACE = 0.25  # between words, in heights; poppler joins what is nearer than 0.1
_EM = 1000
_LAST_CODE = 0xFFFF


def write(export: PixelExport) -> None:
    """Write one PDF of all images, or one per image into a folder.

    Raises:
        MissingExtraError: pikepdf or fontTools is not installed.
        UsageError: Nothing can be written there, or the pictures are too many for one file.
    """
    _require()
    out, options, report = export.out, export.options, export.report
    if is_folder(out):
        folder = Folder(out, options)
        files = FileNames("pdf", ".pdf", export.names)
        for page, data, decoded in export.files():
            with _Document() as document:
                document.add(PageLayout(page, export.names.name(page)), data, decoded)
                folder.write(files.take(page), document.save())
            report.files += 1
        report.stale = files.stale(folder.files())
        return
    if not out.lower().endswith(".pdf"):
        raise UsageError(f"--out {out}: give a folder, or a file that ends in .pdf")
    with open_binary(out, options) as file, _Document() as document:
        for page, data, decoded in export.files():
            document.add(PageLayout(page, export.names.name(page)), data, decoded)
            if document.bytes > _MAX_BYTES:
                raise UsageError(
                    f"{out}: more than {_MAX_BYTES >> 30} GiB of pictures after {report.images} "
                    "images: give a folder as --out for one file per image, or --limit"
                )
        file.write(document.save())
    report.files = 1


class _Document:
    """A PDF being written."""

    def __init__(self) -> None:
        import pikepdf

        self._pike = pikepdf
        self._pdf = pikepdf.new()
        self._font = self._pdf.make_indirect(self._make_font())
        self.bytes = 0

    def __enter__(self) -> _Document:
        return self

    def __exit__(self, *_: object) -> None:
        self._pdf.close()

    def add(self, layout: PageLayout, data: bytes, decoded: Decoded) -> None:
        """Add a page with the picture; a plain JPEG is embedded unchanged, without loss."""
        height, width = decoded.image.shape[:2]
        scale = min(_POINTS_PER_PIXEL, _MAX_POINTS / max(width, height))
        stream, channels = plain_jpeg(data, decoded) or (_jpeg(decoded.image, layout.name), 3)
        name = self._pike.Name
        picture = self._pdf.make_stream(
            stream,
            Type=name.XObject,
            Subtype=name.Image,
            Width=width,
            Height=height,
            ColorSpace=name.DeviceRGB if channels == 3 else name.DeviceGray,
            BitsPerComponent=8,
            Filter=name.DCTDecode,
        )
        self.bytes += len(stream)
        self._pdf.add_blank_page(page_size=(width * scale, height * scale))
        page = self._pdf.pages[-1].obj
        page.Resources = self._pike.Dictionary(
            XObject=self._pike.Dictionary(Picture=picture),
            Font=self._pike.Dictionary(Unseen=self._font),
        )
        shown = f"q {width * scale:.3f} 0 0 {height * scale:.3f} 0 0 cm /Picture Do Q\n"
        page.Contents = self._pdf.make_stream((shown + _text_layer(layout, scale)).encode("ascii"))

    def save(self) -> bytes:
        """The finished file; deterministic for the same pages."""
        data = io.BytesIO()
        self._pdf.save(data, deterministic_id=True)
        return data.getvalue()

    def _make_font(self) -> Any:
        pike = self._pike
        name, dictionary = pike.Name, pike.Dictionary
        descriptor = self._pdf.make_indirect(
            dictionary(
                Type=name.FontDescriptor,
                FontName=name("/Unseen"),
                Flags=5,  # fixed pitch, symbolic
                FontBBox=[0, 0, _EM // 2, _EM],
                ItalicAngle=0,
                Ascent=_EM,
                Descent=-1,  # readers take 0 for missing
                CapHeight=_EM,
                StemV=80,
                FontFile2=self._pdf.make_stream(_shapeless_font()),
            )
        )
        below = self._pdf.make_indirect(
            dictionary(
                Type=name.Font,
                Subtype=name.CIDFontType2,
                BaseFont=name("/Unseen"),
                CIDSystemInfo=dictionary(
                    Registry=pike.String("Adobe"), Ordering=pike.String("Identity"), Supplement=0
                ),
                FontDescriptor=descriptor,
                DW=_EM // 2,
                CIDToGIDMap=self._pdf.make_stream(b"\0\1" * (_LAST_CODE + 1)),
            )
        )
        return dictionary(
            Type=name.Font,
            Subtype=name.Type0,
            BaseFont=name("/Unseen"),
            Encoding=name("/Identity-H"),
            DescendantFonts=[below],
            ToUnicode=self._pdf.make_stream(_TO_UNICODE),
        )


def _jpeg(image: NDArray[np.uint8], name: str) -> bytes:
    data = jpeg_bytes(image, _JPEG_QUALITY)
    if data is None:
        raise UsageError(f"cannot encode the picture of {name}")
    return data


def _text_layer(layout: PageLayout, scale: float) -> str:
    """The words of a page as invisible text (rendering mode 3), line after line."""
    parts = ["BT 3 Tr\n"]
    for line in layout.lines:
        places = [_Place(word) for word in line.words]
        for place, after in zip(places, [*places[1:], None], strict=True):
            if after is not None:
                place.end_before(after)
            parts.append(place.drawn(layout.height, scale, " " if after else ""))
    parts.append("ET\n")
    return "".join(parts)


class _Place:
    """Where a word is set: over its upright box, in the nearest multiple of 90 degrees.

    Readers (poppler among them) split a word into letters if its baseline is not parallel to an
    axis, and a search does not find it then; so its highlight is the box, not the quadrilateral.
    """

    def __init__(self, word: PageWord) -> None:
        self._text = word.text
        self._turn = round(word.angle_deg / 90) % 4
        # the text's direction on the page, y downwards
        self._cos, self._sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[self._turn]
        x0, y0, x1, y1 = word.box
        along = sorted(x * self._cos + y * self._sin for x, y in ((x0, y0), (x1, y1)))
        across = sorted(y * self._cos - x * self._sin for x, y in ((x0, y0), (x1, y1)))
        side = math.hypot(word.polygon[0] - word.polygon[6], word.polygon[1] - word.polygon[7])
        self.start, self._end = along
        self.size = max(min(side, across[1] - across[0]), 1.0)
        self._base = (across[0] + across[1] + self.size) / 2

    def end_before(self, after: _Place) -> None:
        """Leave a gap: readers join words that touch, even with a space between them."""
        if after._turn == self._turn:
            limit = after.start - _SPACE * max(self.size, after.size)
            self._end = min(self._end, max(limit, (self.start + self._end) / 2))

    def drawn(self, height: int, scale: float, after: str) -> str:
        """The operators that set the word, in a page whose y axis points up."""
        x = self.start * self._cos - self._base * self._sin
        y = height - (self.start * self._sin + self._base * self._cos)
        units = max(len(self._text.encode("utf-16-be", "replace")) // 2, 1)
        stretch = 100 * max(self._end - self.start, 1.0) / (units * self.size / 2)
        codes = (self._text + after).encode("utf-16-be", "replace").hex()
        cos, sin = self._cos, -self._sin
        return (
            f"/Unseen {self.size * scale:.3f} Tf {stretch:.3f} Tz"
            f" {cos} {sin} {-sin} {cos} {x * scale:.3f} {y * scale:.3f} Tm <{codes}> Tj\n"
        )


def _require() -> None:
    try:
        import fontTools.fontBuilder  # noqa: F401
        import pikepdf  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("export -f pdf", "pdf") from exc


@functools.cache
def _shapeless_font() -> bytes:
    """A TrueType font of two empty glyphs."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.ttLib.tables._g_l_y_f import Glyph

    builder = FontBuilder(_EM, isTTF=True)
    builder.setupGlyphOrder([".notdef", "unseen"])
    builder.setupCharacterMap({0x20: "unseen"})
    builder.setupGlyf({".notdef": Glyph(), "unseen": Glyph()})
    builder.setupHorizontalMetrics({".notdef": (_EM // 2, 0), "unseen": (_EM // 2, 0)})
    builder.setupHorizontalHeader(ascent=_EM, descent=0)
    builder.setupNameTable({"familyName": "Unseen", "styleName": "Regular", "psName": "Unseen"})
    builder.setupOS2(sTypoAscender=_EM, sTypoDescender=0, usWinAscent=_EM, usWinDescent=0)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0  # the same bytes every time
    builder.font.recalcTimestamp = False
    data = io.BytesIO()
    builder.save(data)
    return data.getvalue()


# every code is the UTF-16 unit of the same number
_TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""
