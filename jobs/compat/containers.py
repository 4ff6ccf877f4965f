"""Groups of containers: archives, lists and tables, as real tools write them.

Each case says which images must be read, in any order, and how many rows or counted reasons must
stand for what cannot be.
"""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from jobs.compat.registry import Cell, Verdict, group
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import TextspotError
from textspot_ray.records import ErrorKind, Item, Skipped
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader

_TRUE_REASONS = frozenset({ErrorKind.UNSUPPORTED, ErrorKind.TOO_LARGE})
_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"


class NotMade(Exception):
    """A tool is not installed, or cannot write what is asked for."""


@dataclass(frozen=True, slots=True)
class Case:
    """One container.

    Attributes:
        kind: Row of the table.
        name: File or folder name, unique within its group.
        make: Writes it at a path; raises `NotMade`.
        images: What must be read.
        errors: Rows of the errors table that there must be.
        maker: Tool and version.
        skipped: Reasons that must be counted, by name.
        refused: It is right to refuse it, if the reason is true.
        options: Of the source.
    """

    kind: str
    name: str
    make: Callable[[Path], None]
    images: tuple[bytes, ...]
    errors: int = 0
    maker: str = _PYTHON
    skipped: tuple[str, ...] = ()
    refused: bool = False
    options: tuple[tuple[str, Any], ...] = ()


def picture(seed: int, kind: str = "JPEG") -> bytes:
    """A small image; no two seeds give the same."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (seed * 37 % 256, seed * 91 % 256, seed % 256)).save(buffer, kind)
    return buffer.getvalue()


IMAGES = tuple(picture(i) for i in range(6))
MEMBERS = [(f"d/{i}.jpg", data) for i, data in enumerate(IMAGES)]


@group("archives")
def archives(folder: Path) -> Iterator[Cell]:
    """Tars, zips and 7z."""
    for case in (*_tars(), *_zips(), *_seven_zips()):
        yield judge(case, folder)


@group("lists")
def lists(folder: Path) -> Iterator[Cell]:
    """Text, CSV, TSV and JSONL lists of files beside them."""
    (folder / "img").mkdir(exist_ok=True)
    for i, data in enumerate(IMAGES):
        (folder / "img" / f"{i}.jpg").write_bytes(data)
    (folder / "img" / "a b.jpg").write_bytes(IMAGES[5])
    for case in _lists():
        yield judge(case, folder)


@group("tables")
def tables(folder: Path) -> Iterator[Cell]:
    """Parquet and Arrow files with images."""
    (folder / "img").mkdir(exist_ok=True)
    for i, data in enumerate(IMAGES):
        (folder / "img" / f"{i}.jpg").write_bytes(data)
    for case in _tables():
        yield judge(case, folder)


def judge(case: Case, folder: Path) -> Cell:
    """Make a case's container, list and read it, and compare."""
    path = folder / case.name

    def cell(verdict: Verdict, detail: str = "") -> Cell:
        return Cell(case.kind, case.maker, case.name, verdict, detail)

    try:
        case.make(path)
    except NotMade as exc:
        return cell(Verdict.UNMADE, str(exc))
    source = SourceConfig(uris=(str(path),), **dict(case.options))
    try:
        found = list(list_items(source, ImageConfig()))
    except TextspotError as exc:
        return cell(Verdict.WRONG, f"ended the run: {exc}")
    with Reader(source, ImageConfig()) as reader:
        read = list(reader.read(f for f in found if isinstance(f, Item)))
    got = Counter(e.data for e in read if e.data is not None)
    errors = [e.error for e in read if e.error is not None]
    reasons = Counter(f.reason for f in found if isinstance(f, Skipped))
    detail = "; ".join(dict.fromkeys(f"{e.kind}: {e.message}" for e in errors[:3]))
    if case.refused and errors and not got:
        true = all(e.kind in _TRUE_REASONS for e in errors)
        return cell(Verdict.REFUSED if true else Verdict.WRONG, detail)
    if got != Counter(case.images):
        missing = sum((Counter(case.images) - got).values())
        return cell(Verdict.WRONG, f"{missing} of {len(case.images)} images missing; {detail}")
    if len(errors) != case.errors:
        return cell(Verdict.WRONG, f"{len(errors)} error rows, not {case.errors}: {detail}")
    if any(reason not in reasons for reason in case.skipped):
        return cell(Verdict.WRONG, f"counted: {dict(reasons)}, not {case.skipped}")
    return cell(Verdict.RIGHT, detail)


# ---------------------------------------------------------------- makers


def write(data: bytes | str) -> Callable[[Path], None]:
    """Writes given bytes."""

    def make(path: Path) -> None:
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return make


def by_tool(*command: str) -> Callable[[Path], None]:
    """Runs a program in a folder that holds the images; ``{out}`` is the archive."""

    def make(path: Path) -> None:
        program = shutil.which(command[0])
        if program is None:
            raise NotMade(f"{command[0]} is not installed")
        work = path.parent / f"{path.name}.work"
        (work / "d").mkdir(parents=True, exist_ok=True)
        for member, data in MEMBERS:
            (work / member).write_bytes(data)
        words = [word.replace("{out}", str(path.absolute())) for word in command[1:]]
        done = subprocess.run(
            [program, *words], cwd=work, capture_output=True, text=True, timeout=60
        )
        shutil.rmtree(work)
        if done.returncode or not path.exists():
            raise NotMade(f"{' '.join(command[:3])}: {done.stderr.strip()[:100]}")

    return make


def tool_version(program: str, *flags: str) -> str:
    """Name and version of a program."""
    if shutil.which(program) is None:
        return program
    done = subprocess.run([program, *(flags or ("--version",))], capture_output=True, text=True)
    first = next(iter((done.stdout or done.stderr).strip().splitlines()), "")
    digits = next((w for w in first.split() if w[:1].isdigit()), "")
    return f"{program} {digits}".strip()


def package(name: str) -> str:
    """Name and version of a Python package."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def tar(members: list[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A plain zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _tars() -> Iterator[Case]:
    for name, form in (("ustar", 0), ("gnu", 1), ("pax", 2)):
        yield Case("tar", f"{name}.tar", write(tar(MEMBERS, form)), IMAGES)
    plain = tar(MEMBERS)
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    for suffix, pack in packers.items():
        yield Case("compressed tar", f"a.tar.{suffix}", write(pack(plain)), IMAGES)
        two = pack(tar(MEMBERS[:3])) + pack(tar(MEMBERS[3:]))
        yield Case("concatenated tars", f"two.tar.{suffix}", write(two), IMAGES)
    two = tar(MEMBERS[:2]) + tar(MEMBERS[2:])
    yield Case("concatenated tars", "two.tar", write(two), IMAGES)
    block = 512
    first = block + len(IMAGES[0]) + -len(IMAGES[0]) % block
    lone = plain[:first] + bytes(block) + plain[first:]
    yield Case("tar with a lone block of zeros", "lone.tar", write(lone), IMAGES)
    zeroed = plain[:first] + bytes(block) + plain[first + block :]
    others = (IMAGES[0], *IMAGES[2:])
    yield Case("tar with a zeroed header", "zeroed.tar", write(zeroed), others, errors=1)
    behind = plain + b"signature" * 99
    yield Case("tar with bytes behind its end", "behind.tar", write(behind), IMAGES,
               skipped=("bytes behind a tar's end",))  # fmt: skip
    cut = plain[: 2 * first + 700]
    yield Case("tar cut off", "cut.tar", write(cut), IMAGES[:2], errors=1)
    gnu = tool_version("tar")
    for form in ("v7", "oldgnu", "posix"):
        make = by_tool("tar", "-cf", "{out}", f"--format={form}", "d")
        yield Case("tar", f"tool-{form}.tar", make, IMAGES, maker=gnu)
    for flag, suffix in (("-z", "tgz"), ("-j", "tbz2"), ("-J", "txz"), ("--zstd", "tzst")):
        make = by_tool("tar", "-c", flag, "-f", "{out}", "d")
        yield Case("compressed tar", f"tool.{suffix}", make, IMAGES, maker=gnu)
    bsd = tool_version("bsdtar")
    for form in ("ustar", "pax", "gnutar"):
        make = by_tool("bsdtar", "-cf", "{out}", "--format", form, "d")
        yield Case("tar", f"bsd-{form}.tar", make, IMAGES, maker=bsd)
    holes = ("sh", "-c", "truncate -s 1M d/0.jpg && {} {{out}} d")
    for name, maker, command in (
        ("bsd", bsd, "bsdtar -cf"),
        ("gnu", gnu, "tar --sparse -cf"),
        ("gnu-posix", gnu, "tar --sparse --format=posix -cf"),
    ):
        if shutil.which(command.split()[0]) is None:
            continue
        make = by_tool(*(word.format(command) for word in holes))
        sparse = (IMAGES[0] + bytes((1 << 20) - len(IMAGES[0])), *IMAGES[1:])
        yield Case("tar with a sparse member", f"sparse-{name}.tar", make, sparse, maker=maker)
    yield Case("webdataset", "web.tar", _webdataset, IMAGES, maker=package("webdataset"),
               skipped=("not an image",))  # fmt: skip


def _webdataset(path: Path) -> None:
    try:
        import webdataset
    except ImportError as exc:
        raise NotMade("webdataset is not installed") from exc
    with webdataset.TarWriter(str(path)) as sink:
        for i, data in enumerate(IMAGES):
            sink.write({"__key__": f"{i:05d}", "jpg": data, "json": {"n": i}})


def _zips() -> Iterator[Case]:
    for name in ("STORED", "DEFLATED", "BZIP2", "LZMA"):
        data = zipped(MEMBERS, getattr(zipfile, f"ZIP_{name}"))
        yield Case("zip", f"{name.lower()}.zip", write(data), IMAGES)
    plain = zipped(MEMBERS)
    at = plain.rindex(b"PK\5\6")
    _, _, _, _, count, length, start, _ = struct.unpack("<4s4H2LH", plain[at : at + 22])
    fewer = plain[: at + 8] + struct.pack("<HH", 2, 2) + plain[at + 12 :]
    yield Case("zip whose count has overflown", "count.zip", write(fewer), IMAGES)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    full = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    for name, end in (("full", full), ("partly", plain[at:])):
        data = plain[:at] + record + locator + end
        yield Case("zip64", f"zip64-{name}.zip", write(data), IMAGES)
    yield Case("zip behind a program", "sfx.zip", write(b"#!/bin/sh\n" * 99 + plain), IMAGES)
    yield Case("zip before other bytes", "suffix.zip", write(plain + bytes(70_000)), IMAGES)
    yield Case("zip cut off", "cut.zip", write(plain[: len(plain) // 2]), (), errors=1)
    last = plain[: at + 4] + struct.pack("<H", 1) + plain[at + 6 :]
    yield Case("split zip", "split.zip", write(last), (), errors=1)
    info = tool_version("zip", "-v")
    for level in ("-0", "-6", "-9"):
        make = by_tool("zip", "-q", "-r", level, "{out}", "d")
        yield Case("zip", f"tool{level}.zip", make, IMAGES, maker=info)
    make = by_tool("sh", "-c", "zip -q -r - d > '{out}'")
    yield Case("zip streamed", "streamed.zip", make, IMAGES, maker=info)
    make = by_tool("zip", "-q", "-r", "-P", "secret", "{out}", "d")
    yield Case("encrypted zip", "secret.zip", make, (), refused=True, maker=info)
    make = by_tool("sh", "-c", "cat d/0.jpg | zip -q '{out}' - && printf '@ -\\n@=d/0.jpg\\n' | "
                   "zipnote -w '{out}'")  # fmt: skip
    yield Case("zip64", "stdin.zip", make, IMAGES[:1], maker=info)
    bsd = tool_version("bsdtar")
    make = by_tool("bsdtar", "--format", "zip", "-cf", "{out}", "d")
    yield Case("zip", "bsd.zip", make, IMAGES, maker=bsd)
    make = by_tool("bsdtar", "--format", "zip", "--options", "zip:zip64", "-cf", "{out}", "d")
    yield Case("zip64", "bsd64.zip", make, IMAGES, maker=bsd)
    for method in ("Deflate", "Deflate64", "BZip2", "LZMA", "PPMd"):
        make = by_tool("7zz", "a", "-tzip", f"-mm={method}", "{out}", "d")
        read = method not in ("Deflate64", "PPMd")
        images = IMAGES if read else ()
        yield Case(f"zip by {method}", f"7zz-{method}.zip", make, images, refused=not read,
                   maker=tool_version("7zz", "i"))  # fmt: skip


def _seven_zips() -> Iterator[Case]:
    maker = tool_version("7zz", "i")
    for name, flags in {
        "lzma2": (), "solid": ("-ms=on",), "loose": ("-ms=off",), "lzma": ("-m0=lzma",),
        "ppmd": ("-m0=ppmd",), "bzip2": ("-m0=bzip2",), "copy": ("-m0=copy",),
        "delta": ("-m0=delta:4", "-m1=lzma2"), "plain-header": ("-mhc=off",),
    }.items():  # fmt: skip
        make = by_tool("7zz", "a", *flags, "{out}", "d")
        yield Case("7z", f"{name}.7z", make, IMAGES, maker=maker)
    make = by_tool("7zz", "a", "-psecret", "{out}", "d")
    yield Case("encrypted 7z", "secret.7z", make, (), refused=True, maker=maker)
    make = by_tool("7zz", "a", "-psecret", "-mhe=on", "{out}", "d")
    yield Case("encrypted 7z", "secret-names.7z", make, (), refused=True, maker=maker)


def _lists() -> Iterator[Case]:
    three = IMAGES[:3]
    paths = [f"img/{i}.jpg" for i in range(3)]
    plain = "\n".join(paths) + "\n"
    csv_text = "url,n\n" + "".join(f"{p},{i}\n" for i, p in enumerate(paths))
    for name, data in {
        "plain.txt": plain, "crlf.txt": plain.replace("\n", "\r\n"), "bare.txt": plain.strip(),
        "bom.txt": "\ufeff" + plain, "spaces.txt": "img/a b.jpg\n",
    }.items():  # fmt: skip
        images = IMAGES[5:] if name == "spaces.txt" else three
        yield Case("text list", name, write(data), images)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        for suffix, text in (("txt", plain), ("csv", csv_text)):
            data = text.replace("\n", "\r\n").encode(encoding)
            yield Case("list in UTF-16", f"{encoding}.{suffix}", write(data), three)
    yield Case("quoted text list", "quoted.txt", write(f'"{paths[0]}"\n"{paths[1]}"\n'), three[:2])
    windows = plain.replace("/", "\\")
    yield Case("list with backslashes", "windows.txt", write(windows), three)
    label = json.dumps([{"transcription": "HELLO", "points": [[0, 0]]}])
    paddle = "".join(f"{p}\t{label}\n" for p in paths)
    yield Case("PaddleOCR label file", "Label.txt", write(paddle), three)
    yield Case("PaddleOCR label file", "rec.txt", write(plain.replace("\n", "\tWORD\n")), three)
    yield Case("CSV", "plain.csv", write(csv_text), three)
    yield Case("CSV", "semicolon.csv", write(csv_text.replace(",", ";")), three)
    yield Case("CSV without heading", "bare.csv", write(csv_text.partition("\n")[2]), three)
    yield Case("CSV without heading", "one.csv", write(plain), three)
    broken = f"url,n\n{paths[0]},1\n,2\n{paths[1]}\n{paths[2]},3\n"
    yield Case("CSV with bad rows", "bad.csv", write(broken), (three[0], three[2]), errors=2)
    buffer = io.StringIO()
    table = csv.writer(buffer, csv.QUOTE_ALL)
    table.writerows([["file", "text"], *([p, 'two\nlines, "x"'] for p in paths)])
    yield Case("CSV", "quoted.csv", write(buffer.getvalue()), three)
    tsv = "url\tcaption\n" + "".join(f'{p}\t"open {i}\n' for i, p in enumerate(paths))
    yield Case("TSV with open quotes", "open.tsv", write(tsv), three)
    buffer = io.StringIO()
    table = csv.writer(buffer, delimiter="\t")
    table.writerows([["url", "caption"], *([p, 'say "x"\nbye'] for p in paths)])
    yield Case("TSV", "quoted.tsv", write(buffer.getvalue()), three)
    rows = "".join(json.dumps({"image": p, "id": i}) + "\n" for i, p in enumerate(paths))
    yield Case("JSONL", "plain.jsonl", write(rows), three)
    llava = json.dumps({"id": 1, "images": paths, "conversations": [{"value": "q"}]}) + "\n"
    yield Case("JSONL of LLaVA", "llava.jsonl", write(llava), three)
    bad = rows.replace('{"image": "img/1.jpg"', '{"image": img/1.jpg')
    yield Case("JSONL with bad rows", "bad.jsonl", write(bad), (three[0], three[2]), errors=1)
    yield Case("Parquet of paths", "paths.parquet", _save(pa.table({"path": paths})), three)


def _save(table: Any, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        pq.write_table(table, path, **options)

    return make


def _tables() -> Iterator[Case]:
    arrow = package("pyarrow")

    def case(
        kind: str, name: str, table: Any, images: tuple[bytes, ...] = IMAGES, **more: Any
    ) -> Case:
        return Case(kind, f"{name}.parquet", _save(table), images, maker=arrow, **more)

    plain = pa.array(IMAGES, pa.binary())
    hf = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(IMAGES)]
    yield case("binary", "binary", pa.table({"image": plain, "text": ["x"] * 6}))
    yield case("large binary", "large", pa.table({"jpg": plain.cast(pa.large_binary())}))
    yield case("dictionary of binary", "dict", pa.table({"img": plain.dictionary_encode()}))
    if hasattr(pa, "binary_view"):
        yield case("binary view", "view", pa.table({"img": plain.cast(pa.binary_view())}))
    yield case("struct of bytes and path", "hf", pa.table({"image": hf, "label": [1] * 6}))
    nested = pa.table({"sample": [{"view": row} for row in hf]})
    yield case("nested struct", "nested", nested)
    yield case("list of structs", "lists", pa.table({"images": [hf[:2], [], hf[2:]]}))
    yield case(
        "list of binary", "binaries", pa.table({"images": [list(IMAGES[:4]), [*IMAGES[4:]]]})
    )
    two = pa.table({"emb": [bytes(64)] * 6, "photo": plain})
    yield case("two binary columns", "two", two)
    both = pa.table({"left": plain, "right": plain})
    yield case("two columns of images", "both", both, options=(("image_column", "right"),))
    texts = [base64.b64encode(data).decode() for data in IMAGES]
    yield case("base64", "base64", pa.table({"image": texts, "caption": ["x"] * 6}))
    urls = [f"data:image/jpeg;base64,{text}" for text in texts]
    yield case("base64", "data-url", pa.table({"image": urls}))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    bare = [{"bytes": None, "path": f"img/{i}.jpg"} for i in range(6)]
    yield case("struct with path only", "path", pa.table({"image": pa.array(bare, kind)}))
    yield case("null rows", "nulls", pa.table({"image": [IMAGES[0], None]}), IMAGES[:1], errors=1)
    yield case("no rows", "empty", pa.table({"image": pa.array([], pa.binary())}), ())
    yield Case("Arrow stream", "a.arrow", _arrow, IMAGES, maker=arrow)
    for name in ("to_parquet", "save_to_disk"):
        yield Case(f"datasets.{name}", f"hf-{name}" + (".parquet" if name[0] == "t" else ""),
                   _datasets(name), IMAGES, maker=package("datasets"))  # fmt: skip
    yield Case("pandas", "pandas.parquet", _pandas, IMAGES, maker=package("pandas"))
    yield Case("polars", "polars.parquet", _polars, IMAGES, maker=package("polars"))
    yield Case("DuckDB", "duckdb.parquet", _duckdb, IMAGES, maker=package("duckdb"))


def _arrow(path: Path) -> None:
    table = pa.table({"image": list(IMAGES)})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def _datasets(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        try:
            import datasets
        except ImportError as exc:
            raise NotMade("datasets is not installed") from exc
        rows = [{"bytes": data, "path": None} for data in IMAGES]
        features = datasets.Features({"image": datasets.Image()})
        getattr(datasets.Dataset.from_dict({"image": rows}, features), name)(str(path))

    return make


def _pandas(path: Path) -> None:
    try:
        import pandas as pd
    except ImportError as exc:
        raise NotMade("pandas is not installed") from exc
    pd.DataFrame({"image": list(IMAGES), "n": range(6)}).to_parquet(path)


def _polars(path: Path) -> None:
    try:
        import polars as pl
    except ImportError as exc:
        raise NotMade("polars is not installed") from exc
    pl.DataFrame({"image": list(IMAGES), "n": list(range(6))}).write_parquet(path)


def _duckdb(path: Path) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.register("images", pa.table({"image": list(IMAGES)}))
    connection.sql("FROM images").write_parquet(str(path))
