"""Images of a PDF that its page does not list: bounded, and drawn where they are good."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textspot_ray.images.decode import Decoded, decode
from textspot_ray.images.raster import FileMemory
from textspot_ray.records import ErrorKind, ImageError

pytest.importorskip("pypdfium2")
MAX = 200_000_000
GRAY = b"/Type /XObject /Subtype /Image /Width 160 /Height 96 /ColorSpace /DeviceGray"
GRAY += b" /BitsPerComponent 8"
DRAW = b"q 160 0 0 96 20 2 cm /I Do Q"
USE = b"/XObject << /I 5 0 R >>"


def stream(head: bytes, data: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (head, len(data), data)


def page(content: bytes, resources: bytes, extra: bytes, objects: dict[int, bytes]) -> bytes:
    """A PDF of one page of 200 x 100 points; objects from 5 on are the caller's."""
    head = b"/Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< %s /Resources << %s >> %s >>" % (head, resources, extra),
        4: stream(b"", content),
        **objects,
    }
    out, places = bytearray(b"%PDF-1.7\n"), {}
    for number, body in sorted(objects.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    out += b"".join(b"%d 1\n%010d 00000 n \n" % place for place in sorted(places.items()))
    return bytes(out) + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        max(objects) + 1,
        start,
    )


def form(resources: bytes, content: bytes, more: bytes = b"") -> bytes:
    head = b"/Type /XObject /Subtype /Form /BBox [0 0 200 100] /Resources << %s >> %s"
    return stream(head % (resources, more), content)


def jpeg(says: tuple[int, int] | None = None) -> bytes:
    """A dark progressive JPEG of 160 x 96, which may say that it is larger."""
    made = io.BytesIO()
    Image.new("L", (160, 96), 10).save(made, "JPEG", progressive=True)
    data = bytearray(made.getvalue())
    if says is not None:
        struct.pack_into(">HH", data, data.index(b"\xff\xc2") + 5, says[1], says[0])
    return bytes(data)


def jpeg2000(says: tuple[int, int] | None = None) -> bytes:
    imagecodecs = pytest.importorskip("imagecodecs")
    data = bytearray(
        imagecodecs.jpeg2k_encode(np.full((96, 160), 10, np.uint8), codecformat="j2k", level=0)
    )
    if says is not None:
        for at in (8, 24):
            struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + at, *says)
    return bytes(data)


def hidden(where: str, image: bytes, packed: bytes) -> bytes:
    """A page that shows an image in a way of its own."""
    picture = stream(b"%s /Filter %s" % (GRAY, packed), image)
    white = zlib.compress(b"\xff" * 160 * 96)
    cell = b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 160 96]"
    cell += b" /XStep 160 /YStep 96 /Resources << /XObject << /I 5 0 R >> >>"
    font = b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 160 96] /FontMatrix [.01 0 0 .01 0 0]"
    font += b" /CharProcs << /a 7 0 R >> /Encoding << /Type /Encoding /Differences [97 /a] >>"
    font += b" /FirstChar 97 /LastChar 97 /Widths [160] /Resources << /XObject << /I 5 0 R >> >> >>"
    fill = b"160 0 0 96 0 0 cm /I Do"
    if where == "soft mask":
        black = zlib.compress(bytes(160 * 96))
        shown = stream(GRAY + b" /Filter /FlateDecode /SMask 6 0 R", black)
        return page(DRAW, USE, b"", {5: shown, 6: picture})
    if where == "pattern":
        pattern = b"/Pattern << /P 6 0 R >>"
        content = b"/Pattern cs /P scn 0 0 200 100 re f"
        return page(content, pattern, b"", {5: picture, 6: stream(cell, fill)})
    if where == "glyph":
        glyph = stream(b"", b"160 0 d0 " + fill)
        text = b"BT /F 60 Tf 10 10 Td (a) Tj ET"
        return page(text, b"/Font << /F 6 0 R >>", b"", {5: picture, 6: font, 7: glyph})
    if where == "deep form":
        forms = {n: form(b"/XObject << /X %d 0 R >>" % (n + 1), b"/X Do") for n in range(10, 28)}
        objects = {5: picture, **forms, 28: form(USE, DRAW)}
        return page(b"/X Do", b"/XObject << /X 10 0 R >>", b"", objects)
    if where == "annotation":
        note = b"<< /Type /Annot /Subtype /Stamp /F 4 /Rect [0 0 200 100] /AP << /N 7 0 R >> >>"
        return page(b"", b"", b"/Annots [6 0 R]", {5: picture, 6: note, 7: form(USE, DRAW)})
    assert where == "group's mask"
    group = form(USE, DRAW, b"/Group << /S /Transparency /CS /DeviceGray >>")
    state = b"/ExtGState << /G << /SMask << /S /Luminosity /G 6 0 R >> >> >>"
    shown = stream(GRAY + b" /Filter /FlateDecode", white)
    return page(b"/G gs 0 0 200 100 re f", state, b"", {5: picture, 6: group, 8: shown})


PLACES = ["soft mask", "pattern", "glyph", "deep form", "annotation", "group's mask"]
CODECS = {b"/DCTDecode": jpeg, b"/JPXDecode": jpeg2000}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("packed", list(CODECS))
@pytest.mark.parametrize("deflated", [False, True])
def test_wherever_a_pdf_hides_an_image_its_size_is_checked(
    where: str, packed: bytes, deflated: bool
) -> None:
    """PDFium would ask for 3 GiB and more, by 1 kB of PDF."""
    make, memory = CODECS[packed], FileMemory()

    def pdf(image: bytes) -> bytes:
        if deflated:
            return hidden(where, zlib.compress(image), b"[/FlateDecode %s]" % packed)
        return hidden(where, image, packed)

    good = decode(pdf(make()), max_pixels=MAX)
    assert isinstance(good, Decoded), good
    assert good.image.min() < 250  # it is drawn
    bomb = pdf(make((40_000, 40_000)))
    for _ in range(2):  # also by what is kept of the file
        refused = decode(bomb, max_pixels=MAX, memory=memory)
        assert isinstance(refused, ImageError) and refused.kind is ErrorKind.TOO_LARGE
        assert "40000 x 40000" in refused.message


def test_nor_does_encryption_without_a_password_hide_it(tmp_path: Path) -> None:
    pikepdf = pytest.importorskip("pikepdf")
    with pikepdf.open(
        io.BytesIO(hidden("soft mask", jpeg((40_000, 40_000)), b"/DCTDecode"))
    ) as pdf:
        pdf.save(tmp_path / "a.pdf", encryption=pikepdf.Encryption(owner="x", user="", R=6))
    refused = decode((tmp_path / "a.pdf").read_bytes(), max_pixels=MAX)
    assert isinstance(refused, ImageError) and "40000 x 40000" in refused.message
