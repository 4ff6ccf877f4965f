"""Damaged archives through listing and reading: no crash, and nothing lost without a word.

python -m jobs.compat.mutate_archives --count 600

Archives of every kind are cut, zeroed, flipped, shuffled and joined at random. Each is listed and
read in a child process; what is counted: crashes, exceptions, time-outs, and archives that gave
fewer images than they were made with although no row and no counted reason says so.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import multiprocessing as mp
import resource
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from jobs.compat.mutations import hunt
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import TextspotError
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader

_IMAGES = 8
_LIMIT_S = 60.0


def main() -> int:
    """Exit code 0 if there was no crash, no exception and nothing lost."""
    with tempfile.TemporaryDirectory() as scratch:

        def attempt(name: str, data: bytes) -> tuple[str, float]:
            path = Path(scratch) / name
            path.write_bytes(data)
            try:
                return _in_child(path)
            finally:
                path.unlink()

        return hunt("jobs.compat.mutate_archives", 600, archives(), attempt, "whole", "told")


def pictures() -> list[bytes]:
    """A few small images."""
    made = []
    for i in range(_IMAGES):
        buffer = io.BytesIO()
        Image.effect_noise((90, 60), 40 + i).convert("RGB").save(buffer, "JPEG")
        made.append(buffer.getvalue())
    return made


def archives() -> dict[str, bytes]:
    """One whole archive of every kind, by file name."""
    images = pictures()
    tar = _tar(images, tarfile.PAX_FORMAT)
    made = {
        "a.tar": tar,
        "gnu.tar": _tar(images, tarfile.GNU_FORMAT),
        "a.tar.gz": gzip.compress(tar),
        "a.tar.bz2": bz2.compress(tar),
        "a.tar.xz": lzma.compress(tar),
        "a.tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress(tar),
        "stored.zip": _zip(images, zipfile.ZIP_STORED),
        "deflated.zip": _zip(images, zipfile.ZIP_DEFLATED),
        "lzma.zip": _zip(images, zipfile.ZIP_LZMA),
        "a.parquet": _table(pa.table({"image": images, "n": list(range(_IMAGES))})),
        "hf.parquet": _table(pa.table({"image": [{"bytes": d, "path": "x"} for d in images]})),
        "lists.parquet": _table(pa.table({"images": [images[:3], images[3:]]})),
    }
    buffer = io.BytesIO()
    table = pa.table({"image": images})
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    made["a.arrow"] = buffer.getvalue()
    try:
        import py7zr
    except ImportError:
        return made
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w") as archive:
        for i, data in enumerate(images):
            archive.writestr(data, f"d/{i}.jpg")
    made["a.7z"] = buffer.getvalue()
    return made


def _in_child(path: Path) -> tuple[str, float]:
    ours, theirs = mp.Pipe(duplex=False)
    child = mp.get_context("fork").Process(target=_try, args=(path, theirs))
    child.start()
    theirs.close()
    answer: tuple[str, float] = ("timeout: no answer", 0.0)
    if ours.poll(_LIMIT_S):
        try:
            answer = ours.recv()
        except EOFError:
            child.join(5)
            answer = (f"crash: exit {child.exitcode}", 0.0)
    child.kill()
    child.join()
    return answer


def _try(path: Path, pipe: Any) -> None:
    try:
        outcome = _outcome(path)
    except TextspotError as exc:
        outcome = f"refused: {exc}"
    except BaseException as exc:
        outcome = f"exception: {type(exc).__name__}: {exc}"
    pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _outcome(path: Path) -> str:
    source, image = SourceConfig(uris=(str(path.parent),)), ImageConfig()
    found = list(list_items(source, image))
    items = [f for f in found if isinstance(f, Item)]
    skipped = [f for f in found if isinstance(f, Skipped)]
    with Reader(source, image) as reader:
        read = list(reader.read(items))
    good = sum(e.data is not None for e in read)
    told = len(read) - good + len(skipped)
    if len(read) != len(items) or any((e.data is None) == (e.error is None) for e in read):
        return "lost: an item without an answer"
    if good >= _IMAGES:
        return "whole"
    return "told" if told else f"lost: {good} of {_IMAGES} images, and no word"


def _tar(images: list[bytes], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for i, data in enumerate(images):
            info = tarfile.TarInfo(f"d/{'long' * (30 if i == 3 else 1)}{i}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _zip(images: list[bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for i, data in enumerate(images):
            archive.writestr(f"d/{i}.jpg", data)
    return buffer.getvalue()


def _table(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=3)
    return buffer.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
