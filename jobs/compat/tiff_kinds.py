"""TIFFs over layouts, sample types, compressions, predictors, strips, tiles and byte orders."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.compat.judge import Made
from jobs.compat.pictures import alpha, grey, on_ground, words

_LOSSLESS = ("none", "lzw", "deflate", "adobe_deflate", "packbits", "zstd", "lzma", "png")
_MODERN = ("webp", "jpegxl", "jpeg2000", "jpegxr", "lerc", "jpeg", "pixarlog")
_NUMBERS = {
    "none": 1, "lzw": 5, "deflate": 32946, "adobe_deflate": 8, "packbits": 32773, "zstd": 50000,
    "lzma": 34925, "png": 34933, "webp": 50001, "jpegxl": 50002, "jpeg2000": 34712,
    "jpegxr": 34934, "lerc": 34887, "jpeg": 7, "pixarlog": 32909,
}  # fmt: skip


def deep(values: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """8-bit values over the whole range of another sample type; floats from 0 to 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (values.astype(np.float64) / 255).astype(kind)
    if kind.kind == "i":
        info = np.iinfo(kind)
        return (values.astype(np.int64) * ((int(info.max) + 1) // 256)).astype(kind)
    if kind.itemsize == 8:
        return values.astype(kind) * np.uint64(0x0101010101010101)
    factor = {1: 1, 2: 257, 4: 0x01010101}[kind.itemsize]
    return (values.astype(np.uint64) * factor).astype(kind)


def _layouts() -> Iterator[tuple[str, NDArray[np.uint8], dict[str, Any], NDArray[np.uint8]]]:
    picture = words()
    level, mask = grey(picture), alpha(picture)
    as_rgb = np.dstack([level] * 3)
    yield "grey", level, {"photometric": "minisblack"}, as_rgb
    yield "grey, white is zero", 255 - level, {"photometric": "miniswhite"}, as_rgb
    yield "RGB", picture, {"photometric": "rgb"}, picture
    yield (
        "RGBA",
        np.dstack([picture, mask]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        on_ground(picture, mask),
    )
    yield (
        "grey and alpha",
        np.dstack([level, mask]),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
        on_ground(as_rgb, mask),
    )
    cmyk = np.dstack([255 - picture, np.zeros_like(level)])
    yield "CMYK", cmyk, {"photometric": "separated"}, picture


def _stored(values: NDArray[Any], options: dict[str, Any]) -> bytes | None:
    import tifffile

    buffer = io.BytesIO()
    try:
        tifffile.imwrite(buffer, values, metadata=None, **options)
    except Exception:  # a combination that the writer does not know: no cell
        return None
    return buffer.getvalue()


def tifffile_kinds(every: int = 1) -> Iterator[Made]:
    """Layout x sample type x compression x predictor x strips or tiles x planes x byte order.

    Args:
        every: Make only one of so many combinations.
    """
    import tifffile

    number = -1

    shapes: dict[str, dict[str, Any]] = {
        "strips": {"rowsperstrip": 20},
        "tiles": {"tile": (64, 48)},
    }
    for name, base, options, truth in _layouts():
        for dtype, compression in itertools.product(
            ("uint8", "uint16", "int16", "uint32", "float16", "float32", "float64"),
            (*_LOSSLESS, *_MODERN),
        ):
            if dtype not in ("uint8", "uint16", "float32") and compression not in (
                "none",
                "lzw",
                "adobe_deflate",
                "lerc",
            ):
                continue
            if "white is zero" in name and np.dtype(dtype).kind != "u":
                continue
            values = deep(base, dtype)
            for shape, planar, order, predictor in itertools.product(
                shapes, ("contig", "separate"), "<>", (False, True)
            ):
                if planar == "separate" and (values.ndim < 3 or "alpha" in name):
                    continue
                if predictor and compression not in ("lzw", "adobe_deflate", "zstd"):
                    continue
                if predictor and (order == ">" or dtype not in ("uint8", "uint16", "float32")):
                    continue
                if order == ">" and (planar == "separate") == (shape == "tiles"):
                    continue  # half of the big-endian ones
                made: dict[str, Any] = {
                    **options,
                    **shapes[shape],
                    "byteorder": order,
                    "compression": None if compression == "none" else _NUMBERS[compression],
                }
                if predictor:
                    made["predictor"] = True
                if values.ndim == 3 and "planarconfig" not in made:
                    made["planarconfig"] = planar
                if compression == "jpeg" and dtype != "uint8":
                    continue  # the writer puts 12 of 16 bits into the stream
                number += 1
                if number % every:
                    continue
                picture = values
                if made.get("planarconfig") == "separate":
                    picture = np.ascontiguousarray(np.moveaxis(values, -1, 0))
                data = _stored(picture, made)
                if data is None:
                    continue
                label = "-".join(
                    part
                    for part in (
                        name.replace(" ", "_").replace(",", ""),
                        dtype,
                        compression,
                        shape,
                        planar if values.ndim == 3 else "",
                        "big" if order == ">" else "",
                        "predictor" if predictor else "",
                    )
                    if part
                )
                yield Made(
                    f"TIFF {compression} {dtype}",
                    label,
                    data,
                    truth,
                    lossy=compression in ("jpeg", "pixarlog")
                    or compression in ("jpegxr", "webp", "jpegxl"),
                    maker=f"tifffile {tifffile.__version__}",
                )
