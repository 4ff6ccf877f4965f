"""Ground truth in the ICDAR robust reading format: eight coordinates and a text per line."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from textspot_ray.errors import UsageError
from textspot_ray.storage.faults import reason_of

DONT_CARE = "###"
_MAX_GT_BYTES = 8 * 2**20  # of one file; the largest known has 90 lines
_LINE = re.compile(r"^\s*" + r"(-?\d+(?:\.\d+)?)\s*,\s*" * 8 + r"(.*)$", re.DOTALL)
_QUOTED = re.compile(r'^\s*"(.*)"\s*$', re.DOTALL)


@dataclass(frozen=True, slots=True)
class GtWord:
    """One line of ground truth.

    Attributes:
        polygon: x0, y0, ... x3, y3 in pixels of the ground truth's image size.
        text: Transcription as written; `DONT_CARE` marks a region that does not count.
    """

    polygon: tuple[float, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Predicted:
    """One predicted word, in pixels of the ground truth.

    Attributes:
        polygon: x0, y0, ... x3, y3.
        text: What was read.
        text_confidence: Of the reading; used only by thresholds.
        detection_confidence: Of the box; used only by thresholds.
    """

    polygon: tuple[float, ...]
    text: str
    text_confidence: float = 1.0
    detection_confidence: float = 1.0


def parse_line(line: str, where: str = "line") -> GtWord:
    """Read one line by the organisers' rules: all after the numbers is text, quotes are removed.

    Raises:
        UsageError: The line does not start with eight numbers.
    """
    match = _LINE.match(line)
    if match is None:
        raise UsageError(f"{where}: expected x1,y1,...,x4,y4,text, not {line[:60]!r}")
    text = match.group(9)
    quoted = _QUOTED.match(text)
    if quoted is not None:
        text = quoted.group(1).replace("\\\\", "\\").replace('\\"', '"')
    return GtWord(tuple(float(match.group(n)) for n in range(1, 9)), text)


def parse_ground_truth(data: bytes, where: str) -> tuple[GtWord, ...]:
    """Read one file; a byte order mark, CR LF and empty lines are accepted."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{where} is not UTF-8 (byte {exc.start})") from exc
    # not splitlines(): a transcription may hold U+2028 and the like
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return tuple(
        parse_line(line, f"{where}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )


def gt_key(name: str) -> str:
    """Key of a ground truth file: ``gt_img_7.txt`` and ``img_7.txt`` both give ``img_7``."""
    return PurePosixPath(name).stem.removeprefix("gt_")


def read_ground_truth(path: str | Path) -> dict[str, tuple[GtWord, ...]]:
    """Read all ``*.txt`` of a folder, tar (also compressed) or zip, by `gt_key`.

    Raises:
        UsageError: The path is missing, or holds no ground truth, a bad line, or a key twice.
    """
    found: dict[str, tuple[GtWord, ...]] = {}
    for name, data in read_texts(Path(path)):
        key = gt_key(name)
        if key in found:
            raise UsageError(f"{path} holds two ground truth files for {key!r}")
        found[key] = parse_ground_truth(data, f"{path}: {name}")
    if not found:
        raise UsageError(f"{path} holds no ground truth (*.txt files named gt_<image>.txt)")
    return found


def read_texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the ``*.txt`` files of a folder (with sub-folders), tar or zip."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.txt")):
                if _wanted(file.name):
                    yield file.relative_to(path).as_posix(), file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if _wanted(info.filename) and info.file_size <= _MAX_GT_BYTES:
                        yield info.filename, archive.read(info)
        else:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and _wanted(member.name) and member.size <= _MAX_GT_BYTES:
                        stream = tar.extractfile(member) or io.BytesIO()
                        yield member.name, stream.read()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as exc:
        raise UsageError(f"cannot read {path}: {reason_of(exc)}") from exc


def _wanted(name: str) -> bool:
    base = PurePosixPath(name).name
    return base.lower().endswith(".txt") and not base.startswith((".", "README", "readme"))
