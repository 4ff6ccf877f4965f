"""Which bytes and names are images: read, known but not read, or something else."""

from __future__ import annotations

import re
from enum import StrEnum

from textspot_ray.redaction import words


class Format(StrEnum):
    """Formats that are decoded; the names are stored in tables."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"
    GIF = "gif"
    JPEG2000 = "jpeg2000"
    HEIF = "heif"
    AVIF = "avif"
    JPEGXL = "jpegxl"
    JPEGXR = "jpegxr"
    PDF = "pdf"
    RAW = "raw"
    PNM = "pnm"
    PCX = "pcx"
    TGA = "tga"
    PSD = "psd"
    QOI = "qoi"
    ICO = "ico"


class NameKind(StrEnum):
    """What a file name alone says."""

    IMAGE = "image"
    OTHER = "other"  # known to be no image
    UNKNOWN = "unknown"  # the first bytes must tell


READ_SUFFIXES = words(
    "jpg jpeg jpe jfif png apng webp bmp dib tif tiff gif jp2 j2k j2c jpc jpf jpx heic heif hif "
    "avif jxl jxr wdp pdf pcx tga psd qoi ico cur pbm pgm ppm pnm pam pfm raw cr2 cr3 nef arw dng "
    "orf rw2 raf pef srw nrw rwl mrw x3f erf kdc 3fr iiq mef mos jls svs ptif"
)
# Images that are not read: they become items all the same, so that they are reported.
UNREAD_SUFFIXES = words("svg svgz djvu djv eps ai exr hdr dcm dicom xcf icns")
IMAGE_SUFFIXES = READ_SUFFIXES | UNREAD_SUFFIXES
OTHER_SUFFIXES = words(
    "txt md rst csv tsv json jsonl ndjson xml html htm css js ts py ipynb c h cpp java sh yaml yml "
    "toml ini cfg conf log lst list idx index lock sha1 sha256 md5 crc sig asc doc docx xls xlsx "
    "ppt pptx odt rtf epub mobi mp3 wav flac ogg m4a mp4 mov avi mkv webm m4v 3gp exe dll so dylib "
    "o a class jar whl pyc pth pt onnx npy npz pkl pickle h5 hdf5 mat db sqlite sqlite3 xmp thm "
    "lnk url tmp part crdownload bak swp ttf otf woff woff2 arrow feather cls geojson bin"
)

_ISO_BRANDS = {
    b"avif": Format.AVIF,
    b"avis": Format.AVIF,
    b"crx ": Format.RAW,
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), Format.HEIF),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), Format.HEIF),
}
_MAGIC = (
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Format.JPEG2000),
    (b"\xff\x4f\xff\x51", Format.JPEG2000),
    (b"\xff\x0a", Format.JPEGXL),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", Format.JPEGXL),
    (b"II\xbc\x01", Format.JPEGXR),
    (b"%PDF-", Format.PDF),
    (b"\xef\xbb\xbf%PDF-", Format.PDF),
    (b"8BPS\0\x01", Format.PSD),
    (b"qoif", Format.QOI),
    (b"\x00\x00\x01\x00", Format.ICO),
    (b"\x00\x00\x02\x00", Format.ICO),
    (b"IIRO", Format.RAW),
    (b"IIRS", Format.RAW),
    (b"MMOR", Format.RAW),
    (b"IIU\x00", Format.RAW),
    (b"FUJIFILMCCD-RAW", Format.RAW),
    (b"FOVb", Format.RAW),
    (b"\0MRM", Format.RAW),
)
_UNREAD_MAGIC = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"gimp xcf", "GIMP XCF"),
    (b"icns", "Apple icon"),
    (b"8BPS\0\x02", "Photoshop PSB"),
    (b"\x97JB2\r\n\x1a\n", "JBIG2"),
    (b"DDS ", "DirectDraw surface"),
    (b"\x01\xda", "SGI image"),
    (b"SIMPLE  =", "FITS"),
)
_ADVICE = {
    "SVG": "render it to PNG first, for example: rsvg-convert",
    "PostScript": "render it to PNG first, for example: gs -sDEVICE=png16m -r200",
    "DjVu": "convert it to TIFF first, for example: ddjvu -format=tiff",
    "DICOM": "convert it to PNG first, for example: dcm2img",
}
_PNM = re.compile(rb"P(?:[1-6]\s+(?:#|\d)|7\n|[fF]\n)")
# Header sizes of OS/2 and Windows bitmaps, in the first four bytes behind the file header.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
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
    """The format that is read, by magic bytes; needs the first 64 bytes.

    TGA has none: `looks_like_tga` needs the whole file.
    """
    for magic, found in _MAGIC:
        if head.startswith(magic):
            if found is Format.ICO and not _is_icon(head):
                continue
            return found
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Format.WEBP
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Format.RAW if head[8:10] == b"CR" else Format.TIFF
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, 64, 4))]
        # mif1 is only the family: AVIF and HEIC files may list it first.
        named = [_ISO_BRANDS[b] for b in brands if b in _ISO_BRANDS]
        return next((n for n in named if n is not Format.HEIF), named[0] if named else None)
    # "BM" alone also begins words.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return Format.BMP
    if _PNM.match(head):
        return Format.PNM
    if head[:1] == b"\n" and head[1:2] in b"\0\x02\x03\x04\x05" and head[2:3] == b"\x01":
        return Format.PCX if head[3:4] in b"\x01\x02\x04\x08" and len(head) > 3 else None
    return None


def _is_icon(head: bytes) -> bool:
    """A directory of icons: a count that is small, and a reserved byte that is zero."""
    return len(head) >= 22 and 0 < int.from_bytes(head[4:6], "little") <= 256 and head[9] == 0


def looks_like_tga(data: bytes) -> bool:
    """Whether a whole file may be a Truevision TGA, which has no magic bytes.

    The footer of version 2 settles it; without one every field of the header must make sense and
    an uncompressed image must fit the file.
    """
    if len(data) < 18 + 1:
        return False
    id_bytes, has_map, kind = data[0], data[1], data[2]
    map_count, map_bits = int.from_bytes(data[5:7], "little"), data[7]
    width, height = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    bits, descriptor = data[16], data[17]
    if kind not in (1, 2, 3, 9, 10, 11) or has_map > 1 or not (width and height):
        return False
    if bits not in (8, 15, 16, 24, 32) or descriptor & 0xC0:
        return False
    if data[-18:-1] == b"TRUEVISION-XFILE." or data[-18:] == b"TRUEVISION-XFILE.\0":
        return True
    if has_map == 0 and (any(data[3:8]) or kind in (1, 9)):
        return False
    if has_map and (map_bits not in (15, 16, 24, 32) or not 0 < map_count <= 256):
        return False
    start = 18 + id_bytes + map_count * ((map_bits + 7) // 8)
    pixels = width * height * ((bits + 7) // 8)
    if kind < 8:
        return start + pixels <= len(data) <= start + pixels + 4096
    return start < len(data) <= start + pixels * 2 + 4096


def unread_format(head: bytes) -> str | None:
    """Name of an image format that is known but not read; needs the first 512 bytes."""
    for magic, name in _UNREAD_MAGIC:
        if head.startswith(magic):
            return name
    if head[128:132] == b"DICM":
        return "DICOM"
    if head.lstrip()[:1] == b"<" and _SVG.search(head):
        return "SVG"
    return None


def advice(name: str) -> str:
    """What to do about a format that is not read."""
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
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"7z\xbc\xaf\x27\x1c"):
        return "a 7z archive"
    if head.startswith(b"PAR1"):
        return "a Parquet file"
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
