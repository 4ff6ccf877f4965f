"""JPEG 2000: depths, code streams and boxes, tiles, colour spaces, alpha, and ends."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__

from jobs.compat.judge import Made, by_tool, version
from jobs.compat.pictures import Pixels, alpha, grey, on_ground, words


def _pnm(values: NDArray[Any], most: int) -> bytes:
    height, width = values.shape[:2]
    head = f"P{5 if values.ndim == 2 else 6}\n{width} {height}\n{most}\n".encode()
    return head + values.astype(">u2" if most > 255 else np.uint8).tobytes()


def kinds(folder: Path) -> Iterator[Made]:
    """All of them."""
    picture = words()
    level, mask = grey(picture), alpha(picture)
    both = np.dstack([level] * 3)

    def made(kind: str, name: str, data: bytes, truth: Pixels, **more: Any) -> Made:
        more.setdefault("ending", "jp2")
        return Made(f"JPEG 2000 {kind}", name, data, truth, **more)

    opj = f"opj_compress {version('opj_compress')}"
    for bits in (8, 10, 12, 16):
        for name, source, truth in (("grey", level, both), ("rgb", picture, picture)):
            values = np.rint(source.astype(np.float64) * ((1 << bits) - 1) / 255).astype(np.uint32)
            path = folder / f"in.{'pgm' if values.ndim == 2 else 'ppm'}"
            path.write_bytes(_pnm(values, (1 << bits) - 1))
            for ending in ("jp2", "j2k"):
                target = folder / f"out.{ending}"
                for how, options in (
                    ("", []),
                    ("-tiles", ["-t", "64,64"]),
                    ("-lossy", ["-r", "8", "-I"]),
                ):
                    data = by_tool(
                        "opj_compress",
                        ["-n", "4", "-i", str(path), "-o", str(target), *options],
                        target,
                    )
                    if data:
                        yield made(
                            f"{name} {bits}-bit",
                            f"{name}{bits}{how}",
                            data,
                            truth,
                            lossy=how == "-lossy",
                            ending=ending,
                            maker=opj,
                        )
    path = folder / "in.ppm"
    path.write_bytes(_pnm(picture, 255))
    for how, options in {
        "rpcl-plt": ["-p", "RPCL", "-PLT"],
        "sop-eph": ["-SOP", "-EPH"],
        "tlm-parts": ["-TP", "R", "-TLM"],
        "codeblocks": ["-b", "32,32", "-M", "1"],
        "layers": ["-r", "20,10,1"],
        "no-mct": ["-mct", "0"],
    }.items():
        target = folder / "out.jp2"
        data = by_tool(
            "opj_compress", ["-n", "4", "-i", str(path), "-o", str(target), *options], target
        )
        if data:
            yield made("coding options", how, data, picture, maker=opj)
    pillow = f"Pillow {__version__}"
    for mode, image, truth in (
        ("L", Image.fromarray(level), both),
        ("LA", Image.merge("LA", (Image.fromarray(level), Image.fromarray(mask))),
         on_ground(both, mask)),
        ("RGB", Image.fromarray(picture), picture),
        ("RGBA", Image.fromarray(np.dstack([picture, mask])), on_ground(picture, mask)),
        ("I;16", Image.fromarray(level.astype(np.uint16) * 257), both),
        ("YCbCr", Image.fromarray(picture).convert("YCbCr"), picture),
    ):  # fmt: skip
        for no_jp2 in (False, True):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG2000", no_jp2=no_jp2)
            name = f"pillow-{mode.replace(';', '')}{'-raw' if no_jp2 else ''}"
            raw_ycc = mode == "YCbCr" and no_jp2
            if raw_ycc:
                continue  # a bare code stream does not say that it is YCbCr
            yield made(f"Pillow {mode}", name, buffer.getvalue(), truth, maker=pillow,
                       ending="j2k" if no_jp2 else "jp2", lossy=mode == "YCbCr")  # fmt: skip
    yield from _by_gdal(picture, level, mask)
    plain = io.BytesIO()
    Image.fromarray(picture).save(plain, "JPEG2000")
    data = plain.getvalue()
    yield made("Psot 0", "psot0", _psot0(data), picture)
    yield made("Psot 0", "psot0-padded", _psot0(data) + bytes(7), picture)
    yield made("without EOC", "no-eoc", data[:-2], picture, damaged=True)
    light = np.dstack([np.full_like(picture, 255), 255 - level])
    buffer = io.BytesIO()
    Image.fromarray(light).save(buffer, "JPEG2000")
    yield made("white text on a transparent ground", "white-on-clear", buffer.getvalue(),
               np.dstack([255 - level] * 3))  # fmt: skip


def _psot0(data: bytes) -> bytes:
    """The last tile part's length set to 0: up to the end, as streaming encoders write."""
    at = data.rindex(b"\xff\x90\0\x0a")
    return data[: at + 6] + bytes(4) + data[at + 10 :]


def _by_gdal(picture: Pixels, level: Pixels, mask: Pixels) -> Iterator[Made]:
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        return
    maker = f"GDAL {rasterio.__gdal_version__}"
    for name, bands, truth, bits in (
        ("rgb", picture, picture, 8),
        ("rgba", np.dstack([picture, mask]), on_ground(picture, mask), 8),
        ("grey16", level[..., None].astype(np.uint16) * 257, np.dstack([level] * 3), 16),
        ("rgb16", picture.astype(np.uint16) * 257, picture, 16),
        ("rgb12", picture.astype(np.uint16) * 16 + 8, picture, 12),
        ("rgba16", np.dstack([picture, mask]).astype(np.uint16) * 257,
         on_ground(picture, mask), 16),
    ):  # fmt: skip
        values = np.moveaxis(bands, -1, 0)
        profile: dict[str, Any] = {
            "driver": "JP2OpenJPEG", "width": values.shape[2], "height": values.shape[1],
            "count": values.shape[0], "dtype": values.dtype.name, "QUALITY": 100,
            "REVERSIBLE": "YES",
        }  # fmt: skip
        if bits == 12:
            profile["NBITS"] = 12
        try:
            with MemoryFile() as memory:
                with memory.open(**profile) as target:
                    target.write(values)
                    if name.startswith("rgba"):
                        target.colorinterp = [
                            rasterio.enums.ColorInterp.red,
                            rasterio.enums.ColorInterp.green,
                            rasterio.enums.ColorInterp.blue,
                            rasterio.enums.ColorInterp.alpha,
                        ]
                data = bytes(memory.getbuffer())
        except Exception:  # the driver lacks the combination: no cell
            continue
        yield Made(f"JPEG 2000 GDAL {name}", f"gdal-{name}", data, truth, ending="jp2",
                   maker=maker)  # fmt: skip
