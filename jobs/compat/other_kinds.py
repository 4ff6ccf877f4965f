"""JPEG, WebP, GIF, BMP, HEIF, AVIF, JPEG XL, JPEG XR, PDF, camera raw and old formats."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, __version__

from jobs.compat.judge import Made, by_tool, version
from jobs.compat.pictures import Pixels, alpha, grey, on_ground, words

_PILLOW = f"Pillow {__version__}"


def kinds(folder: Path) -> Iterator[Made]:
    """All of them."""
    picture = words()
    yield from _jpeg(folder, picture)
    yield from _webp(folder, picture)
    yield from _gif(picture)
    yield from _bmp(folder, picture)
    yield from _old(folder, picture)
    yield from _heif(folder, picture)
    yield from _jpegxl(folder, picture)
    yield from _jpegxr(folder, picture)
    yield from _pdf(picture)
    yield from _raw(picture)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_block(orientation: int | None, filling: int = 0) -> bytes:
    """An APP1 segment with an EXIF block that has an orientation or none."""
    entries = [(0x010F, 2, 4, 0x41424300)]
    if orientation is not None:
        entries.append((0x0112, 3, 1, orientation << 16))
    body = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries))
    body += b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4 + filling)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body


def _jpeg(folder: Path, picture: Pixels) -> Iterator[Made]:
    image = Image.fromarray(picture)
    level = np.dstack([grey(picture)] * 3)

    def made(kind: str, name: str, data: bytes, truth: Pixels = picture, **more: Any) -> Made:
        more.setdefault("maker", "own")
        return Made(f"JPEG {kind}", name, data, truth, lossy=True, ending="jpg", **more)

    for subsampling, progressive in itertools.product((0, 1, 2), (False, True)):
        yield made("Huffman", f"j{subsampling}{progressive}",
                   encoded(image, "JPEG", quality=92, subsampling=subsampling,
                           progressive=progressive), maker=_PILLOW)  # fmt: skip
    yield made("grey", "grey", encoded(image.convert("L"), "JPEG", quality=92),
               np.dstack([np.asarray(image.convert("L"))] * 3), maker=_PILLOW)  # fmt: skip
    source, target = folder / "in.ppm", folder / "out.jpg"
    image.save(source)
    for name, options in {
        "arithmetic": ["-arithmetic"], "restart": ["-restart", "1"], "rgb": ["-rgb"],
        "arithmetic-progressive": ["-arithmetic", "-progressive"],
        "s411": ["-sample", "4x1"], "s440": ["-sample", "1x2"], "s410": ["-sample", "4x2"],
    }.items():  # fmt: skip
        data = by_tool(
            "cjpeg", ["-quality", "92", *options, "-outfile", str(target), str(source)], target
        )
        if data:
            yield made(name, f"cjpeg-{name}", data, maker=f"cjpeg {version('cjpeg')}")
    inks = Image.fromarray(np.dstack([255 - picture, np.zeros_like(picture[..., 0])]), "CMYK")
    adobe = encoded(inks, "JPEG", quality=95)
    yield made("CMYK", "cmyk-adobe", adobe, maker=_PILLOW)
    at = adobe.index(b"\xff\xee")
    length = struct.unpack(">H", adobe[at + 2 : at + 4])[0]
    turned = encoded(Image.fromarray(255 - np.asarray(inks), "CMYK"), "JPEG", quality=95)
    yield made("CMYK without Adobe's mark", "cmyk-plain", turned[:at] + turned[at + 2 + length :])
    data = by_tool("convert-im6", [str(source), "-colorspace", "CMYK", str(target)], target)
    if data:
        yield made("CMYK", "cmyk-im", data, maker=f"ImageMagick {version('convert-im6')}")
    whole = encoded(image, "JPEG", quality=92)
    scan = whole.index(b"\xff\xda")
    middle = (scan + len(whole)) // 2
    for name, data in {
        "no-eoi": whole[:-2], "zeroed-eoi": whole[:-2] + bytes(2), "half": whole[:middle],
        "half-eoi": whole[:middle] + b"\xff\xd9",
        "zeroed-sector": whole[:middle] + bytes(512) + whole[middle + 512 :],
    }.items():  # fmt: skip
        yield made("damaged", name, data, damaged=True)
    stored = image.transpose(Image.Transpose.ROTATE_90)
    plain = encoded(stored, "JPEG", quality=92)
    for name, blocks in {
        "two-exif": exif_block(6) + exif_block(None),
        "two-exif-first-empty": exif_block(None) + exif_block(6),
        "long-exif": exif_block(6, 65_000) + exif_block(None, 3_000),
    }.items():
        yield made("two EXIF blocks", name, plain[:2] + blocks + plain[2:])
    try:
        import imagecodecs
    except ImportError:
        return
    coder = f"imagecodecs {imagecodecs.__version__}"
    deep = picture.astype(np.uint16) * 16 + 8
    yield made("12-bit", "twelve", imagecodecs.jpeg8_encode(deep, level=95, bitspersample=12),
               maker=coder)  # fmt: skip
    yield made("lossless", "lossless", imagecodecs.jpeg8_encode(picture, lossless=True),
               maker=coder)  # fmt: skip
    yield made("lossless", "lossless-grey", imagecodecs.jpeg8_encode(grey(picture), lossless=True),
               level, maker=coder)  # fmt: skip
    yield made("lossless", "jpeg-ls", imagecodecs.jpegls_encode(picture), maker=coder)


def _webp(folder: Path, picture: Pixels) -> Iterator[Made]:
    image, mask = Image.fromarray(picture), alpha(picture)
    rgba = Image.fromarray(np.dstack([picture, mask]))
    frames = {"save_all": True, "append_images": [Image.new("RGB", image.size)], "duration": 50}
    light = np.dstack([np.full_like(picture, 255), 255 - grey(picture)])
    for name, data, truth, lossy in (
        ("lossy", encoded(image, "WEBP", quality=92), picture, True),
        ("lossless", encoded(image, "WEBP", lossless=True), picture, False),
        ("alpha", encoded(rgba, "WEBP", lossless=True, exact=True), on_ground(picture, mask),
         False),
        ("animated", encoded(image, "WEBP", lossless=True, **frames), picture, False),
        ("white-on-clear", encoded(Image.fromarray(light), "WEBP", lossless=True, exact=True),
         np.dstack([255 - grey(picture)] * 3), False),
    ):  # fmt: skip
        yield Made(f"WebP {name}", name, data, truth, lossy=lossy, ending="webp", maker=_PILLOW)
    source, target = folder / "in.png", folder / "out.webp"
    image.save(source)
    for name, options in {
        "lossless": ["-lossless"], "near": ["-near_lossless", "60"], "lossy": ["-q", "90"],
    }.items():  # fmt: skip
        data = by_tool("cwebp", [*options, str(source), "-o", str(target)], target)
        if data:
            yield Made(f"WebP {name}", f"cwebp-{name}", data, picture, lossy=True, ending="webp",
                       maker=f"cwebp {version('cwebp')}")  # fmt: skip


def _gif(picture: Pixels) -> Iterator[Made]:
    image = Image.fromarray(picture).quantize(128)
    truth = np.asarray(image.convert("RGB"))
    other = Image.new("P", image.size)
    for name, data in {
        "plain": encoded(image, "GIF"), "interlaced": encoded(image, "GIF", interlace=True),
        "animated": encoded(image, "GIF", save_all=True, append_images=[other], duration=50),
    }.items():  # fmt: skip
        yield Made("GIF", name, data, truth, ending="gif", maker=_PILLOW)


def bitmap(
    picture: Pixels, header: int, bits: int, *, top_down: bool = False, reserved: int = 0
) -> bytes:
    """A BMP with one of the headers that there are, after Microsoft's and IBM's descriptions.

    Args:
        picture: H x W x 3, RGB.
        header: Bytes of the header: 12 (OS/2 1), 40, 64 (OS/2 2), 108 or 124.
        bits: 16 (5-5-5), 24 or 32.
        top_down: First row first.
        reserved: Value of the two reserved words.
    """
    height, width = picture.shape[:2]
    rows = picture if top_down else picture[::-1]
    if bits == 16:
        five = (rows >> 3).astype(np.uint16)
        pixels = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
        body = pixels.view(np.uint8).reshape(height, -1)
    elif bits == 24:
        body = np.ascontiguousarray(rows[..., ::-1]).reshape(height, -1)
    else:
        filled = np.dstack([rows[..., ::-1], np.zeros((height, width), np.uint8)])
        body = filled.reshape(height, -1)
    padding = -body.shape[1] % 4
    data = np.pad(body, ((0, 0), (0, padding))).tobytes()
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits,
                           0, len(data), 2835, 2835, 0, 0)  # fmt: skip
        info += bytes(header - 40)
    start = 14 + len(info)
    head = b"BM" + struct.pack("<IHHI", start + len(data), reserved, reserved, start)
    return head + info + data


def _bmp(folder: Path, picture: Pixels) -> Iterator[Made]:
    def made(name: str, data: bytes, truth: Pixels | None = picture, maker: str = "own") -> Made:
        return Made("BMP", name, data, truth, ending="bmp", maker=maker)

    five = (picture >> 3).astype(np.uint16)
    sixteen = ((five * 255 + 15) // 31).astype(np.uint8)
    for header, bits in itertools.product((12, 40, 64, 108, 124), (16, 24, 32)):
        if header == 12 and bits != 24:
            continue
        truth = sixteen if bits == 16 else picture
        yield made(f"bmp{header}-{bits}", bitmap(picture, header, bits), truth)
    yield made("top-down", bitmap(picture, 40, 24, top_down=True))
    yield made("reserved", bitmap(picture, 40, 24, reserved=7))
    source, target = folder / "in.png", folder / "out.bmp"
    image = Image.fromarray(picture)
    image.save(source)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        shown = image.convert(mode)
        yield made(f"pillow-{mode}", encoded(shown, "BMP"), np.asarray(shown.convert("RGB")),
                   _PILLOW)  # fmt: skip
    for name, options in {
        "rle8": ["-type", "Palette", "-compress", "RLE"], "pal4": ["-colors", "16"],
        "bmp2": [], "bmp3": [], "pal1": ["-monochrome"],
    }.items():  # fmt: skip
        kind = {"bmp2": "BMP2:", "bmp3": "BMP3:"}.get(name, "BMP3:")
        data = by_tool("convert-im6", [str(source), *options, f"{kind}{target}"], target)
        if data:
            yield made(f"im-{name}", data, None, f"ImageMagick {version('convert-im6')}")


def _old(folder: Path, picture: Pixels) -> Iterator[Made]:
    image, mask = Image.fromarray(picture), alpha(picture)
    level = np.dstack([grey(picture)] * 3)
    rgba = Image.fromarray(np.dstack([picture, mask]))
    source, target = folder / "in.png", folder / "out.any"
    image.save(source)
    for name, kind, ending, data, truth in (
        ("tga", "TGA", "tga", encoded(image, "TGA"), picture),
        ("tga-rle", "TGA", "tga", encoded(image, "TGA", compression="tga_rle"), picture),
        ("tga-rgba", "TGA", "tga", encoded(rgba, "TGA"), on_ground(picture, mask)),
        ("tga-grey", "TGA", "tga", encoded(Image.fromarray(grey(picture)), "TGA"), level),
        ("pcx", "PCX", "pcx", encoded(image, "PCX"), picture),
        ("pcx-grey", "PCX", "pcx", encoded(Image.fromarray(grey(picture)), "PCX"), level),
        ("pcx-1", "PCX", "pcx", encoded(image.convert("1"), "PCX"),
         np.asarray(image.convert("1").convert("RGB"))),
        ("ppm", "PNM", "ppm", encoded(image, "PPM"), picture),
        ("pgm", "PNM", "pgm", encoded(Image.fromarray(grey(picture)), "PPM"), level),
        ("pbm", "PNM", "pbm", encoded(image.convert("1"), "PPM"),
         np.asarray(image.convert("1").convert("RGB"))),
        ("pgm-comment", "PNM", "pgm",
         b"P5\n# made by hand\n160 96\n255\n" + grey(picture).tobytes(), level),
        ("ppm16", "PNM", "ppm",
         b"P6\n160 96\n65535\n" + (picture.astype(">u2") * 257).astype(">u2").tobytes(), picture),
        ("pgm10", "PNM", "pgm",
         b"P5\n160 96\n1023\n" + (grey(picture).astype(np.uint32) * 1023 // 255).astype(">u2")
         .tobytes(), level),
        ("ppm-text", "PNM", "ppm",
         b"P3\n160 96\n255\n" + " ".join(map(str, picture.ravel())).encode(), picture),
        ("pam-rgba", "PAM", "pam",
         b"P7\nWIDTH 160\nHEIGHT 96\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
         + np.dstack([picture, mask]).tobytes(), on_ground(picture, mask)),
        ("pam-rgb", "PAM", "pam",
         b"P7\nWIDTH 160\nHEIGHT 96\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
         + picture.tobytes(), picture),
        ("pfm", "PFM", "pfm",
         b"PF\n160 96\n-1.0\n" + (picture[::-1] / 255).astype("<f4").tobytes(), picture),
        ("pfm-grey", "PFM", "pfm",
         b"Pf\n160 96\n-1.0\n" + (grey(picture)[::-1] / 255).astype("<f4").tobytes(), level),
        ("qoi", "QOI", "qoi", _qoi(picture), picture),
        ("ico", "ICO", "ico", encoded(image.resize((64, 64)), "ICO", sizes=[(64, 64)]),
         np.asarray(image.resize((64, 64)))),
    ):  # fmt: skip
        yield Made(kind, name, data, truth, ending=ending, maker=_PILLOW)
    for name in ("PSD", "TGA", "PCX", "PPM", "PAM"):
        # ImageMagick 6 writes TGA rows from the top and says that they come from the bottom.
        flip = ["-flip"] if name == "TGA" else []
        data = by_tool("convert-im6", [str(source), *flip, f"{name}:{target}"], target)
        if data:
            yield Made(name, f"im-{name.lower()}", data, picture, ending=name.lower(),
                       maker=f"ImageMagick {version('convert-im6')}")  # fmt: skip


def _qoi(picture: Pixels) -> bytes:
    height, width = picture.shape[:2]
    pixels = np.dstack([np.full((height, width), 0xFE, np.uint8), picture])
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + pixels.tobytes() + bytes(7) + b"\1"


def _heif(folder: Path, picture: Pixels) -> Iterator[Made]:
    image = Image.fromarray(picture)
    source = folder / "in.png"
    image.save(source)
    turned = folder / "turned.jpg"
    stored = image.transpose(Image.Transpose.ROTATE_90)
    plain = encoded(stored, "JPEG", quality=95)
    turned.write_bytes(plain[:2] + exif_block(6) + plain[2:])
    for program, ending, kind in (("heif-enc", "heic", "HEIF"), ("avifenc", "avif", "AVIF")):
        maker = f"{program} {version(program)}"
        target = folder / f"out.{ending}"
        for name, path in (("plain", source), ("turned", turned)):
            arguments = (
                ["-q", "95", str(path), "-o", str(target)] if program == "heif-enc"
                else [str(path), str(target)]
            )  # fmt: skip
            data = by_tool(program, arguments, target)
            if data:
                # heif-enc 1.15 keeps the EXIF block but writes no irot, which alone counts.
                truth = picture if name == "plain" or ending == "avif" else None
                yield Made(kind, f"{ending}-{name}", data, truth, lossy=True, ending=ending,
                           maker=maker)  # fmt: skip
    target = folder / "out.avif"
    for depth in ("10", "12"):
        data = by_tool("avifenc", ["-d", depth, str(source), str(target)], target)
        if data:
            yield Made("AVIF", f"avif-{depth}", data, picture, lossy=True, ending="avif",
                       maker=f"avifenc {version('avifenc')}")  # fmt: skip
    target = folder / "out.heic"
    data = by_tool("heif-enc", ["-b", "10", "-q", "95", str(source), "-o", str(target)], target)
    if data:
        yield Made("HEIF", "heic-10", data, picture, lossy=True, ending="heic",
                   maker=f"heif-enc {version('heif-enc')}")  # fmt: skip
    yield Made("AVIF", "avif-pillow", encoded(image, "AVIF", quality=90), picture, lossy=True,
               ending="avif", maker=_PILLOW)  # fmt: skip


def _jpegxl(folder: Path, picture: Pixels) -> Iterator[Made]:
    maker = f"cjxl {version('cjxl')}"
    mask = alpha(picture)
    target = folder / "out.jxl"
    image = Image.fromarray(picture)
    for name, saved, truth, options in (
        ("rgb", image, picture, ["-d", "0"]),
        ("lossy", image, picture, ["-d", "1"]),
        ("rgba", Image.fromarray(np.dstack([picture, mask])), on_ground(picture, mask),
         ["-d", "0"]),
        ("grey", Image.fromarray(grey(picture)), np.dstack([grey(picture)] * 3), ["-d", "0"]),
        ("container", image, picture, ["-d", "0", "--container=1"]),
    ):  # fmt: skip
        source = folder / "in.png"
        saved.save(source)
        data = by_tool("cjxl", [str(source), str(target), *options], target)
        if data:
            yield Made("JPEG XL", f"jxl-{name}", data, truth, lossy=name == "lossy", ending="jxl",
                       maker=maker)  # fmt: skip
    source = folder / "in.jpg"
    stored = encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)
    source.write_bytes(stored[:2] + exif_block(6) + stored[2:])
    data = by_tool("cjxl", [str(source), str(target)], target)
    if data:
        yield Made("JPEG XL", "jxl-from-turned-jpeg", data, picture, lossy=True, ending="jxl",
                   maker=maker)  # fmt: skip
    try:
        import imagecodecs
    except ImportError:
        return
    for name, values in (
        ("u16", picture.astype(np.uint16) * 257), ("f32", (picture / 255).astype(np.float32)),
    ):  # fmt: skip
        data = imagecodecs.jpegxl_encode(values, lossless=True)
        yield Made("JPEG XL", f"jxl-{name}", data, picture, ending="jxl",
                   maker=f"imagecodecs {imagecodecs.__version__}")  # fmt: skip


def _jpegxr(folder: Path, picture: Pixels) -> Iterator[Made]:
    try:
        import imagecodecs
    except ImportError:
        return
    for name, values, truth in (
        ("rgb", picture, picture),
        ("grey", grey(picture), np.dstack([grey(picture)] * 3)),
        ("rgb16", picture.astype(np.uint16) * 257, picture),
    ):
        data = imagecodecs.jpegxr_encode(values, level=1.0)
        yield Made("JPEG XR", f"jxr-{name}", data, truth, lossy=True, ending="jxr",
                   maker=f"imagecodecs {imagecodecs.__version__}")  # fmt: skip


def scan_pdf(picture: Pixels, *, points: float = 72.0, rotate: int = 0) -> bytes:
    """A PDF of one page that an image of 8-bit RGB fills.

    Args:
        picture: H x W x 3.
        points: Width of the page.
        rotate: Degrees, as the page's /Rotate.
    """
    import zlib

    height, width = picture.shape[:2]
    high = points * height / width
    body = zlib.compress(picture.tobytes())
    content = f"q {points:g} 0 0 {high:g} 0 0 cm /I Do Q".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {points:g} {high:g}]/Rotate {rotate}"
        "/Resources<</XObject<</I 5 0 R>>>>/Contents 4 0 R>>".encode(),
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8"
        b"/Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (width, height, len(body), body),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    tail = (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF"
    )
    return data + tail % (len(parts) + 1, table, len(parts) + 1, len(data))


def _pdf(picture: Pixels) -> Iterator[Made]:
    yield Made("PDF scan", "scan", scan_pdf(picture), picture, lossy=True, ending="pdf")
    turned = np.ascontiguousarray(np.rot90(picture))
    yield Made("PDF scan", "scan-turned", scan_pdf(turned, rotate=90), picture, lossy=True,
               ending="pdf")  # fmt: skip
    pages = [Image.fromarray(picture)] * 3
    data = encoded(pages[0], "PDF", save_all=True, append_images=pages[1:], resolution=100)
    yield Made("PDF scan", "three-pages", data, picture, lossy=True, ending="pdf", pages=3,
               maker=_PILLOW)  # fmt: skip


def digital_negative(picture: Pixels) -> bytes:
    """A DNG of 12-bit Bayer values (RGGB), with the fewest tags that LibRaw takes."""
    import tifffile

    mosaic = picture[..., 1].astype(np.uint16) * 16
    mosaic[::2, ::2] = picture[::2, ::2, 0].astype(np.uint16) * 16
    mosaic[1::2, 1::2] = picture[1::2, 1::2, 2].astype(np.uint16) * 16
    unit = tuple(v for row in np.eye(3, dtype=int).tolist() for n in row for v in (n, 1))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, mosaic, photometric=32803, metadata=None,
        extratags=[
            (50706, 1, 4, (1, 4, 0, 0), True), (50707, 1, 4, (1, 1, 0, 0), True),
            (33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True),
            (50708, 2, 0, "Compat One", True), (271, 2, 0, "Compat", True),
            (272, 2, 0, "One", True), (50714, 3, 1, 0, True), (50717, 3, 1, 4095, True),
            (50721, 10, 9, unit, True), (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),
            (50778, 3, 1, 21, True),
        ],
    )  # fmt: skip
    return buffer.getvalue()


def _raw(picture: Pixels) -> Iterator[Made]:
    large = np.repeat(np.repeat(picture, 4, 0), 4, 1)
    # Demosaicing, white balance and gamma leave the words, not the levels.
    yield Made("camera raw (DNG)", "dng", digital_negative(large), large, lossy=True, ending="dng",
               tolerance=40)  # fmt: skip
