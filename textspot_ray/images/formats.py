"""Which bytes and names are images: read, known but not read, or something else."""

from __future__ import annotations

import re
from enum import StrEnum


class Format(StrEnum):
    """Formats that are decoded; the names are stored in tables."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"
    GIF = "gif"
    JPEG2000 = "jpeg2000"


class NameKind(StrEnum):
    """What a file name alone says."""

    IMAGE = "image"
    OTHER = "other"  # known to be no image
    UNKNOWN = "unknown"  # the first bytes must tell


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


READ_SUFFIXES = _words(
    "jpg jpeg jpe jfif png apng webp bmp dib tif tiff gif jp2 j2k j2c jpc jpf jpx"
)
# Images that are not read: they become items all the same, so that they are told, not lost.
UNREAD_SUFFIXES = _words(
    "heic heif hif avif pdf svg svgz psd jxl djvu djv eps ai ico cur pcx tga exr hdr pbm pgm ppm "
    "pnm pam qoi dcm dicom jxr wdp raw cr2 cr3 nef arw dng orf rw2 raf pef srw xcf icns"
)
IMAGE_SUFFIXES = READ_SUFFIXES | UNREAD_SUFFIXES
OTHER_SUFFIXES = _words(
    "txt md rst csv tsv json jsonl ndjson xml html htm css js ts py ipynb c h cpp java sh yaml yml "
    "toml ini cfg conf log lst list idx index lock sha1 sha256 md5 crc sig asc doc docx xls xlsx "
    "ppt pptx odt rtf epub mobi mp3 wav flac ogg m4a mp4 mov avi mkv webm m4v 3gp exe dll so dylib "
    "o a class jar whl pyc pth pt onnx npy npz pkl pickle h5 hdf5 mat db sqlite sqlite3 xmp thm "
    "lnk url tmp part crdownload bak swp ttf otf woff woff2 arrow feather cls geojson bin"
)

_ISO_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "camera RAW (CR3)",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "HEIF"),
}
_UNREAD_MAGIC = (
    (b"%PDF-", "PDF"),
    (b"8BPS", "Photoshop PSD"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"\x00\x00\x01\x00", "Windows icon"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"gimp xcf", "GIMP XCF"),
    (b"qoif", "QOI"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"IIRO", "camera RAW (ORF)"),
    (b"IIRS", "camera RAW (ORF)"),
    (b"IIU\x00", "camera RAW (RW2)"),
    (b"FUJIFILMCCD-RAW", "camera RAW (RAF)"),
    (b"icns", "Apple icon"),
)
_ADVICE = {
    "PDF": "render its pages to PNG first, for example: pdftoppm -r 200 -png",
    "HEIC": "convert it to JPEG first, for example: heif-convert",
    "HEIF": "convert it to JPEG first, for example: heif-convert",
    "SVG": "render it to PNG first, for example: rsvg-convert",
    "PostScript": "render it to PNG first, for example: gs -sDEVICE=png16m -r200",
}
_PNM = re.compile(rb"P[1-7][\s#]")
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
SNIFF_BYTES = 512


def name_kind(name: str) -> NameKind:
    """What a path's ending says, case ignored."""
    stem, _, suffix = name.rpartition("/")[2].lower().rpartition(".")
    if not stem:
        return NameKind.UNKNOWN
    if suffix in IMAGE_SUFFIXES:
        return NameKind.IMAGE
    return NameKind.OTHER if suffix in OTHER_SUFFIXES else NameKind.UNKNOWN


def image_format(head: bytes) -> Format | None:
    """The format that is read, by magic bytes; needs the first 16 bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Format.WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Format.GIF
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None if head[8:10] == b"CR" else Format.TIFF
    if head.startswith(b"\x00\x00\x00\x0cjP  \r\n\x87\n") or head.startswith(b"\xff\x4f\xff\x51"):
        return Format.JPEG2000
    # "BM" alone also begins words: the reserved fields are zero and the header size is known.
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0" and head[15:18] == b"\0\0\0":
        return Format.BMP
    return None


def unread_format(head: bytes) -> str | None:
    """Name of an image format that is known but not read; needs the first 512 bytes."""
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, 64, 4))]
        # mif1 is only the family: AVIF and HEIC files may list it first.
        named = [_ISO_BRANDS[b] for b in brands if b in _ISO_BRANDS]
        return next((n for n in named if n != "HEIF"), named[0] if named else None)
    for magic, name in _UNREAD_MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return "camera RAW (CR2)"
    if head[128:132] == b"DICM":
        return "DICOM"
    if _PNM.match(head):
        return "Netpbm"
    if head.lstrip()[:1] == b"<" and _SVG.search(head):
        return "SVG"
    return None


def advice(name: str) -> str:
    """What to do about a format that is not read."""
    if name.startswith("camera RAW"):
        return "develop it to JPEG or TIFF first"
    return _ADVICE.get(name, "convert it to PNG, JPEG or TIFF first")


def is_image_head(head: bytes) -> bool:
    """Whether the first bytes (512 are enough) are an image's, read or not."""
    return image_format(head) is not None or unread_format(head) is not None


def describe(data: bytes) -> str:
    """What bytes that are no image look like, for an error message."""
    head = data[:SNIFF_BYTES]
    start = head.lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if start.startswith((b"{", b"[")):
        return "JSON or similar text"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive"
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")):
        return "compressed data"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (fetch the files with: git lfs pull)"
    if b"\0" not in head:
        try:
            head[:-4].decode("utf-8")
            return "text"
        except UnicodeDecodeError:
            pass
    return "unknown data"
