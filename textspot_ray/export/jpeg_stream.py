"""A JPEG file's stream, for embedding in another file without encoding it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textspot_ray.images.headers import BrokenHeaderError, CutError, Header, jpeg_header

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded

_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what PDF's DCTDecode takes
_KEPT = (0xE0, 0xEE)  # application segments JFIF and Adobe, which define the colours
_SCAN, _COMMENT = 0xDA, 0xFE


def plain_jpeg(data: bytes, decoded: Decoded) -> tuple[bytes, int] | None:
    """The image of a JPEG file without its metadata, and its number of channels.

    EXIF, comments, previews and trailing data are removed: a page that is passed on must not reveal
    where its photo was taken.

    Args:
        data: The file.
        decoded: What it was decoded to.

    Returns:
        None if the stream alone does not show the upright image: other formats, rotated or damaged
        images, CMYK, 12 bits, arithmetic coding, unspecified colours.
    """
    if decoded.damage or decoded.exif_orientation != 1 or data[:2] != b"\xff\xd8":
        return None
    try:
        header = jpeg_header(data, lambda width, height: None)
    except (BrokenHeaderError, CutError):
        return None
    size = (header.width, header.height)
    if size != (decoded.width, decoded.height) or not _is_plain(header, data):
        return None
    return _bare(data, header), header.channels


def _is_plain(header: Header, data: bytes) -> bool:
    if header.process not in _HUFFMAN or header.bits != 8 or header.damage:
        return False
    if header.channels == 3:  # without a colour marker some are RGB
        return header.adobe or data[6:10] in (b"JFIF", b"Exif")
    return header.channels == 1


def _bare(data: bytes, header: Header) -> bytes:
    """The segments before the first scan that decoding needs, and all of the scans."""
    kept = [data[:2]]
    at, stop = 2, header.payload[1]
    while at < stop:
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # fill bytes
            at += 1
            continue
        marker = data[at + 1]
        if marker == _SCAN:
            break
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if marker in _KEPT or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:stop]])
