"""How the product read one file, measured against the file's source and a second decoder."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.compat.registry import Cell, Verdict
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.records import ErrorKind

_LEVELS = 2
_LOSSY_MEAN = 6.0  # mean levels that a compression with loss may be off its source
_TRUE_REASONS = frozenset({ErrorKind.UNSUPPORTED, ErrorKind.TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Made:
    """A file and what it shows.

    Attributes:
        kind: Row of the table.
        name: Unique within its group.
        data: The file.
        truth: H x W x 3 uint8 RGB as it must be read, or None: only a second decoder knows.
        lossy: Compressed with loss: compared on average, not to a level.
        ending: File name ending, for tools that go by it.
        maker: Tool and version.
        pages: How many pages are read.
        damaged: It must be read and its damage told.
        refused: No well-kept library reads it: an error of a true kind is the right answer.
        tolerance: Mean levels that a lossy file may be off.
        broken: There is no image in it: any error is right, pixels are not.
    """

    kind: str
    name: str
    data: bytes
    truth: NDArray[np.uint8] | None
    lossy: bool = False
    ending: str = "tif"
    maker: str = "own"
    pages: int = 1
    damaged: bool = False
    refused: bool = False
    broken: bool = False
    tolerance: float = _LOSSY_MEAN


def judge(made: Made) -> Cell:
    """Read a file with the product and compare."""
    result = decode(made.data, max_pixels=200_000_000)

    def cell(verdict: Verdict, detail: str) -> Cell:
        return Cell(made.kind, made.maker, made.name, verdict, detail)

    if made.broken:
        told = not isinstance(result, Decoded)
        return cell(Verdict.RIGHT if told else Verdict.WRONG, "an error" if told else "pixels")
    if not isinstance(result, Decoded):
        true = result.kind in _TRUE_REASONS
        return cell(Verdict.REFUSED if true else Verdict.WRONG, f"{result.kind}: {result.message}")
    if result.pages != made.pages:
        return cell(Verdict.WRONG, f"{result.pages} pages, not {made.pages}")
    if made.damaged and not result.damage:
        return cell(Verdict.WRONG, "damage is not told")
    if not made.damaged and result.damage:
        return cell(Verdict.WRONG, f"damage told of a whole file: {result.damage}")
    image = result.image[..., ::-1]
    off = "nothing to compare with"
    if made.truth is not None:
        good, off = _compare(image, made.truth, made.lossy, made.tolerance)
        if good or made.damaged:
            return cell(Verdict.RIGHT, off)
    for name, other in second_opinions(made.data, made.ending):
        good, off_other = _compare(image, other, made.lossy and made.truth is None)
        if good:
            return cell(Verdict.RIGHT, f"{off_other} ({name})")
        off += f"; {off_other} ({name})"
    return cell(Verdict.WRONG, off)


def _compare(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], lossy: bool, tolerance: float = _LOSSY_MEAN
) -> tuple[bool, str]:
    if image.shape != truth.shape:
        return (
            False,
            f"{image.shape[1]} x {image.shape[0]}, not {truth.shape[1]} x {truth.shape[0]}",
        )
    off = np.abs(image.astype(np.int16) - truth)
    most, mean = int(off.max()), float(off.mean())
    good = mean <= tolerance if lossy else most <= _LEVELS
    return good, f"off by {mean:.2f} on average, {most} at most"


def second_opinions(data: bytes, ending: str) -> list[tuple[str, NDArray[np.uint8]]]:
    """The file as RGB by decoders that are not the product's, those that are installed."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"in.{ending}"
        source.write_bytes(data)
        for name, command in _DECODERS.items():
            if ending not in command[1] and command[1]:
                continue
            program = shutil.which(command[0][0])
            if program is None:
                continue
            target = Path(folder) / f"{name}.ppm"
            arguments = [
                part.format(source=source, target=target) for part in (program, *command[0][1:])
            ]
            done = subprocess.run(arguments, capture_output=True, timeout=60, check=False)
            if done.returncode == 0 and target.exists():
                pixels = _ppm(target.read_bytes())
                if pixels is not None:
                    found.append((name, pixels))
    return found


_DECODERS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "vips": (("vips", "copy", "{source}[0]", "{target}"), frozenset({"tif", "png", "webp", "gif"})),
    "ImageMagick": (
        ("convert-im6", "{source}[0]", "-alpha", "off", "-depth", "8", "{target}"),
        frozenset(),
    ),
    "OpenJPEG": (
        ("opj_decompress", "-i", "{source}", "-o", "{target}"),
        frozenset({"jp2", "j2k"}),
    ),
    "djpeg": (("djpeg", "-outfile", "{target}", "{source}"), frozenset({"jpg"})),
    "djxl": (("djxl", "{source}", "{target}"), frozenset({"jxl"})),
}


def _ppm(data: bytes) -> NDArray[np.uint8] | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.mode.startswith("I"):
                level = (np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8)
                return np.dstack([level] * 3)
            return np.asarray(opened.convert("RGB"))
    except OSError:
        return None


@cache
def version(program: str) -> str | None:
    """Version of a program in its own words, None where it is not installed."""
    if shutil.which(program) is None:
        return None
    flags = {
        "tiffcp": ("-h",),
        "convert-im6": ("-version",),
        "opj_compress": ("-h",),
        "cwebp": ("-version",),
        "cjpeg": ("-version", "-outfile", "/dev/null", "/dev/null"),
    }
    command = [program, *flags.get(program, ("--version",))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    import re

    match = re.search(r"\d+\.\d+(?:\.\d+)*(?:-\d+)?", done.stdout + done.stderr)
    return match.group(0) if match else "?"


def by_tool(program: str, arguments: list[str], output: Path) -> bytes | None:
    """What a program wrote; None where it is not installed or failed."""
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run([path, *arguments], capture_output=True, timeout=120, check=False)
    if done.returncode or not output.exists():
        return None
    data = output.read_bytes()
    output.unlink()
    return data or None
