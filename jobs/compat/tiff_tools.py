"""TIFFs as libtiff's tools, ImageMagick, libvips, GDAL and Pillow write them, and odd ones."""

from __future__ import annotations

import dataclasses
import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, __version__

from jobs.compat.judge import Made, by_tool, version
from jobs.compat.pictures import Pixels, alpha, bilevel, grey, on_ground, words
from textspot_ray.images.tiff import layout_of, tiff_chain


def tool_kinds(folder: Path) -> Iterator[Made]:
    """All of them."""
    picture = words()
    makers = (
        _libtiff(folder, picture),
        _imagemagick(folder, picture),
        _vips(folder, picture),
        _gdal(picture),
        _pillow(picture),
        _own(picture),
    )
    for made in itertools.chain.from_iterable(makers):
        # A writer that fails halfway leaves a directory whose strips are all empty.
        layout = layout_of(made.data, tiff_chain(made.data).pages[0])
        if not any(count for _, count in layout.segments):
            yield dataclasses.replace(made, kind="TIFF with empty strips", broken=True)
        else:
            yield made


def _paper(picture: Pixels) -> Pixels:
    return np.dstack([np.where(bilevel(picture), 255, 0).astype(np.uint8)] * 3)


def _saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, "TIFF", **options)
    return path


def _libtiff(folder: Path, picture: Pixels) -> Iterator[Made]:
    maker = f"tiffcp {version('tiffcp')}"
    colour = _saved(Image.fromarray(picture), folder / "in.tif")
    bits = _saved(Image.fromarray(bilevel(picture)), folder / "bits.tif")
    deep = folder / "deep.tif"
    import tifffile

    tifffile.imwrite(deep, picture.astype(np.uint16) * 257, photometric="rgb")
    target = folder / "out.tif"
    shapes = {
        "strips": ["-s", "-r", "16"], "tiles": ["-t", "-w", "64", "-l", "48"],
        "one": ["-s", "-r", "10000"],
    }  # fmt: skip
    for compression, shape, order in itertools.product(
        ("none", "lzw", "zip", "packbits", "lzma", "zstd", "jpeg", "webp"), shapes, ("-L", "-B")
    ):
        for name, path, truth in (("rgb8", colour, picture), ("rgb16", deep, picture)):
            for planar in ("contig", "separate"):
                data = by_tool(
                    "tiffcp",
                    [
                        "-c",
                        compression,
                        "-p",
                        planar,
                        order,
                        *shapes[shape],
                        str(path),
                        str(target),
                    ],
                    target,
                )
                if data:
                    label = f"tiffcp-{name}-{compression}-{shape}-{planar}{order}"
                    yield Made(f"TIFF libtiff {compression}", label, data, truth,
                               lossy=compression in ("jpeg", "webp"), maker=maker)  # fmt: skip
    for compression, order in itertools.product(
        ("none", "g3", "g3:2d", "g3:fill", "g4", "packbits", "lzw", "zip", "jbig"), ("-L", "-B")
    ):
        for fill in ("lsb2msb", "msb2lsb"):
            data = by_tool(
                "tiffcp", ["-c", compression, order, "-f", fill, str(bits), str(target)], target
            )
            if data:
                label = f"tiffcp-bits-{compression.replace(':', '')}-{fill}{order}"
                yield Made(f"TIFF libtiff {compression} 1-bit", label, data, _paper(picture),
                           maker=maker, refused=compression == "jbig")  # fmt: skip
    data = by_tool("tiffcp", ["-8", "-c", "lzw", str(colour), str(target)], target)
    if data:
        yield Made("TIFF libtiff big", "tiffcp-big", data, picture, maker=maker)


def _imagemagick(folder: Path, picture: Pixels) -> Iterator[Made]:
    maker = f"ImageMagick {version('convert-im6')}"
    source = folder / "source.png"
    Image.fromarray(picture).save(source)
    target = folder / "out.tif"
    for compression, depth, layout, planes, endian in itertools.product(
        ("None", "LZW", "Zip", "RLE", "JPEG", "LZMA", "ZSTD", "WebP"), ("8", "16"),
        ("rgb", "grey", "cmyk", "rgba"), ("none", "plane"), ("LSB", "MSB"),
    ):  # fmt: skip
        options = {
            "rgb": ["-type", "TrueColor"],
            "grey": ["-channel", "G", "-separate", "-type", "Grayscale"],
            "cmyk": ["-colorspace", "CMYK"],
            "rgba": ["-alpha", "set", "-type", "TrueColorAlpha"],
        }[layout]
        if compression in ("JPEG", "WebP") and (depth == "16" or planes == "plane"):
            continue
        if compression in ("LZMA", "ZSTD") and endian == "MSB":
            continue
        data = by_tool(
            "convert-im6",
            [str(source), *options, "-depth", depth, "-interlace", planes, "-endian", endian,
             "-compress", compression, str(target)],
            target,
        )  # fmt: skip
        if data:
            truth = np.dstack([grey(picture)] * 3) if layout == "grey" else picture
            label = f"im-{layout}-{compression}-{depth}-{planes}-{endian}"
            yield Made(f"TIFF ImageMagick {compression} {depth}-bit", label, data, truth,
                       lossy=compression in ("JPEG", "WebP"), maker=maker)  # fmt: skip
    for name, options, truth in (
        ("miniswhite8", ["-colorspace", "Gray", "-define", "quantum:polarity=min-is-white"], None),
        ("miniswhite16", ["-colorspace", "Gray", "-depth", "16",
                          "-define", "quantum:polarity=min-is-white"], None),
        ("float32", ["-depth", "32", "-define", "quantum:format=floating-point"], picture),
        ("float16", ["-depth", "16", "-define", "quantum:format=floating-point"], picture),
        ("lab8", ["-colorspace", "Lab", "-depth", "8"], None),
        ("fax", ["-monochrome", "-compress", "Fax"], None),
        ("group4", ["-monochrome", "-compress", "Group4"], None),
        ("palette", ["-type", "Palette", "-compress", "LZW"], None),
        ("bilevel", ["-monochrome", "-compress", "None"], None),
    ):  # fmt: skip
        data = by_tool("convert-im6", [str(source), *options, str(target)], target)
        if data:
            yield Made("TIFF ImageMagick kinds", f"im-{name}", data, truth, maker=maker,
                       lossy=name == "lab8")  # fmt: skip
    for quality in ("jpeg", "none"):
        data = by_tool(
            "convert-im6",
            [str(source), "-resize", "400%", "-compress", quality, f"PTIF:{target}"], target,
        )  # fmt: skip
        if data:
            yield Made("TIFF ImageMagick pyramid", f"im-ptif-{quality}", data, None, maker=maker)


def _vips(folder: Path, picture: Pixels) -> Iterator[Made]:
    maker = f"vips {version('vips')}"
    source = folder / "source.png"
    large = np.repeat(np.repeat(picture, 3, 0), 3, 1)
    Image.fromarray(picture).save(source)
    big = folder / "big.png"
    Image.fromarray(large).save(big)
    target = folder / "out.tif"
    for compression, tile in itertools.product(
        ("none", "jpeg", "deflate", "packbits", "lzw", "webp", "zstd", "jp2k"), ("", ",tile")
    ):
        lossy = compression in ("jpeg", "webp", "jp2k")
        data = by_tool(
            "vips", ["copy", str(source), f"{target}[compression={compression}{tile}]"], target
        )
        if data:
            yield Made(f"TIFF vips {compression}", f"vips-{compression}{tile[1:]}", data, picture,
                       lossy=lossy, maker=maker)  # fmt: skip
    for how in ("", ",subifd"):
        data = by_tool(
            "vips",
            ["copy", str(big), f"{target}[pyramid,tile,tile-width=64,tile-height=64{how}]"],
            target,
        )
        if data:
            yield Made("TIFF vips pyramid", f"vips-pyramid{how[1:]}", data, large, maker=maker)
    for bits in (1, 2, 4):
        data = by_tool("vips", ["copy", str(source), f"{target}[bitdepth={bits}]"], target)
        if data:
            yield Made(f"TIFF vips {bits}-bit", f"vips-bits{bits}", data, None, maker=maker)
    data = by_tool(
        "vips", ["copy", str(source), f"{target}[bitdepth=1,miniswhite,compression=ccittfax4]"],
        target,
    )  # fmt: skip
    if data:
        yield Made("TIFF vips fax", "vips-fax-miniswhite", data, None, maker=maker)


def _gdal(picture: Pixels) -> Iterator[Made]:
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        return
    maker = f"GDAL {rasterio.__gdal_version__}"
    level = grey(picture)
    for compression, interleave, tiled, (name, bands, bits), predictor in itertools.product(
        ("NONE", "LZW", "DEFLATE", "ZSTD", "PACKBITS", "LZMA", "LERC", "LERC_DEFLATE", "LERC_ZSTD",
         "WEBP", "JXL", "JPEG"),
        ("PIXEL", "BAND"), (False, True),
        (("rgb8", picture, 8), ("rgb16", picture.astype(np.uint16) * 257, 16),
         ("grey8", level[..., None], 8), ("grey16", level[..., None].astype(np.uint16) * 257, 16),
         ("grey12", level[..., None].astype(np.uint16) * 16 + 8, 12),
         ("grey32f", (level[..., None] / 255).astype(np.float32), 32),
         ("rgb12", picture.astype(np.uint16) * 16 + 8, 12)),
        (1, 2, 3),
    ):  # fmt: skip
        if predictor > 1 and compression not in ("LZW", "DEFLATE", "ZSTD"):
            continue
        if (predictor == 3) != (predictor > 1 and bits == 32):
            continue
        bands = np.asarray(bands)
        if bands.shape[2] == 1 and interleave == "BAND":
            continue
        if predictor > 1 and bits == 12:
            continue
        values = np.moveaxis(bands, -1, 0)
        profile: dict[str, Any] = {
            "driver": "GTiff", "width": values.shape[2], "height": values.shape[1],
            "count": values.shape[0], "dtype": values.dtype.name, "INTERLEAVE": interleave,
            "COMPRESS": compression, "TILED": "YES" if tiled else "NO",
            "PHOTOMETRIC": "RGB" if values.shape[0] == 3 else "MINISBLACK",
        }  # fmt: skip
        if tiled:
            profile |= {"BLOCKXSIZE": 64, "BLOCKYSIZE": 64}
        if predictor > 1:
            profile["PREDICTOR"] = predictor
        if bits == 12:
            profile["NBITS"] = 12
        if compression == "JXL":
            profile["JXL_LOSSLESS"] = "YES"
        if compression == "WEBP":
            profile["WEBP_LOSSLESS"] = "YES"
        try:
            with MemoryFile() as memory:
                with memory.open(**profile) as target:
                    target.write(values)
                data = bytes(memory.getbuffer())
        except Exception:  # the driver lacks the combination: no cell
            continue
        truth = picture if values.shape[0] == 3 else np.dstack([level] * 3)
        label = f"gdal-{name}-{compression}-{interleave}{'-tiled' if tiled else ''}-p{predictor}"
        yield Made(f"TIFF GDAL {compression}", label, data, truth, lossy=compression == "JPEG",
                   maker=maker)  # fmt: skip


def _pillow(picture: Pixels) -> Iterator[Made]:
    level = grey(picture)
    both = np.dstack([level] * 3)
    for mode, compression in itertools.product(
        ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA"),
        (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4", "zstd"),
    ):
        if mode in ("I;16", "I", "F"):
            values: Any = (
                level.astype(np.float32) / 255
                if mode == "F"
                else (level.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
            )
            image, truth = Image.fromarray(values), both
        elif mode == "LAB":
            image, truth = _lab(picture), picture
        else:
            image = Image.fromarray(picture).convert("RGB" if mode == "LA" else mode)
            image = image.convert("LA") if mode == "LA" else image
            truth = np.asarray(image.convert("RGB"))
        buffer = io.BytesIO()
        try:
            image.save(buffer, "TIFF", compression=compression)
        except (OSError, ValueError, KeyError, RuntimeError):
            continue  # a combination that the writer does not know: no cell
        label = f"pillow-{mode.replace(';', '')}-{compression or 'raw'}"
        yield Made(f"TIFF Pillow {mode}", label, buffer.getvalue(), truth,
                   lossy=compression == "jpeg" or mode in ("LAB", "YCbCr"),
                   maker=f"Pillow {__version__}")  # fmt: skip


def _lab(picture: Pixels) -> Image.Image:
    from PIL import ImageCms

    return ImageCms.profileToProfile(
        Image.fromarray(picture),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )


def directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A little-endian directory of (tag, type, count, value or offset)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def old_jpeg(stream: bytes, width: int, height: int, *, strips: bool) -> bytes:
    """Old-style JPEG (TIFF 6.0, section 22) as scanners wrote it: the whole stream in the file."""
    start = 8
    at = start + len(stream) + len(stream) % 2
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 6), (262, 3, 1, 6),
        (273, 4, 1, start), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(stream)),
    ]  # fmt: skip
    if not strips:
        entries += [(513, 4, 1, start), (514, 4, 1, len(stream))]
    return b"II*\0" + struct.pack("<I", at) + stream + bytes(len(stream) % 2) + directory(entries)


def _own(picture: Pixels) -> Iterator[Made]:
    import tifffile

    height, width = picture.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    for strips in (False, True):
        yield Made(
            "TIFF old-style JPEG", f"ojpeg{'-strips' if strips else ''}",
            old_jpeg(buffer.getvalue(), width, height, strips=strips), picture, lossy=True,
        )  # fmt: skip
    for bits in (10, 11, 12):
        for name, source in (("grey", grey(picture)), ("rgb", picture)):
            values = np.rint(source.astype(np.float64) * ((1 << bits) - 1) / 255)
            for compression in (None, "lzw", "zlib"):
                made = io.BytesIO()
                tifffile.imwrite(
                    made,
                    values.astype(np.uint16),
                    compression=compression,
                    photometric="rgb" if source.ndim == 3 else "minisblack",
                )
                truth = picture if source.ndim == 3 else np.dstack([source] * 3)
                yield Made(
                    f"TIFF {bits} bits in 16",
                    f"{name}{bits}in16-{compression}",
                    made.getvalue(),
                    truth,
                    maker=f"tifffile {tifffile.__version__}",
                )
    plain = io.BytesIO()
    Image.fromarray(picture).save(plain, "TIFF")
    data = plain.getvalue()
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    after = first + 2 + 12 * count
    looped = data[:after] + struct.pack("<I", first) + data[after + 4 :]
    garbage = data[:after] + struct.pack("<I", 0x7FFFFFF0) + data[after + 4 :]
    for name, changed in (("next-ifd-itself", looped), ("next-ifd-garbage", garbage)):
        yield Made("TIFF with a broken chain", name, changed, picture, pages=2)
    mask = alpha(picture)
    light = np.dstack([np.full_like(picture, 255), 255 - grey(picture)])
    for name, rgba, truth in (
        ("white-on-clear", light, np.dstack([255 - grey(picture)] * 3)),
        ("premultiplied", np.dstack([(picture * (mask[..., None] / 255)).astype(np.uint8), mask]),
         on_ground(picture, mask)),
    ):  # fmt: skip
        made = io.BytesIO()
        kind = "assocalpha" if name == "premultiplied" else "unassalpha"
        tifffile.imwrite(made, rgba, photometric="rgb", extrasamples=[kind])
        yield Made(f"TIFF {name}", name, made.getvalue(), truth)
