"""Archives as real tools write them: no member is lost without a row or a counted reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import (
    IMAGE,
    config,
    listed,
    names,
    picture,
    read_all,
    tar_bytes,
    zip_bytes,
    zstd,
)
from textspot_ray.records import ErrorKind, Item, Skipped
from textspot_ray.sources.kinds.base import ContainerError, Member
from textspot_ray.sources.kinds.compression import RangeCursor
from textspot_ray.sources.kinds.tar import ZEROS_AT_END, list_tar
from textspot_ray.sources.kinds.zip import list_zip
from textspot_ray.sources.listing import list_items

PACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.zst": zstd,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}
BLOCK = 512


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def contents(items: list[Item]) -> list[bytes | ErrorKind | None]:
    return [e.error.kind if e.error else e.data for e in read_all(items)]


def images(first: int, stop: int) -> list[tuple[str, bytes]]:
    return [(f"{i}.jpg", picture(i)) for i in range(first, stop)]


def data_of(first: int, stop: int) -> list[bytes | ErrorKind | None]:
    return [picture(i) for i in range(first, stop)]


# ---------------------------------------------------------------- tar


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("joined", ["before packing", "after packing"])
def test_concatenated_tars(tmp_path: Path, suffix: str, joined: str) -> None:
    parts, pack = [tar_bytes(images(0, 2)), tar_bytes(images(2, 5))], PACK[suffix]
    whole = pack(b"".join(parts)) if joined[0] == "b" else b"".join(map(pack, parts))
    items, reasons = listed(save(tmp_path / f"a.{suffix}", whole))
    assert contents(items) == data_of(0, 5) and reasons == {}


@pytest.mark.parametrize("suffix", PACK)
def test_a_lone_block_of_zeros(tmp_path: Path, suffix: str) -> None:
    data = tar_bytes(images(0, 3))
    second = listed(save(tmp_path / "p.tar", data))[0][1].offset
    assert second is not None
    at = second - BLOCK
    data = PACK[suffix](data[:at] + bytes(BLOCK) + data[at:])
    items, reasons = listed(save(tmp_path / f"a.{suffix}", data))
    assert contents(items) == data_of(0, 3) and reasons == {}


@pytest.mark.parametrize("suffix", PACK)
def test_a_zeroed_header_costs_its_member_and_says_where(tmp_path: Path, suffix: str) -> None:
    data = bytearray(tar_bytes(images(0, 4)))
    item = listed(save(tmp_path / "p.tar", bytes(data)))[0][2]
    assert item.offset is not None and item.size is not None
    data[item.offset - BLOCK : item.offset] = bytes(BLOCK)
    items, reasons = listed(save(tmp_path / f"a.{suffix}", PACK[suffix](bytes(data))))
    stop = item.offset + item.size + -item.size % BLOCK
    assert contents(items) == [*data_of(0, 2), ErrorKind.BROKEN_ARCHIVE, picture(3)]
    assert items[2].image_id.endswith(f"#~bytes={item.offset}-{stop}") and reasons == {}
    error = items[2].error
    assert error is not None and f"the {stop - item.offset} bytes" in error.message


@pytest.mark.parametrize("suffix", PACK)
def test_a_hole_of_pages(tmp_path: Path, suffix: str) -> None:
    big = [(f"{i}.jpg", picture(i, size=(900, 900))) for i in range(6)]
    data = bytearray(tar_bytes(big))
    at = listed(save(tmp_path / "p.tar", bytes(data)))[0][2].offset
    assert at is not None
    data[at - 1024 : at + 3072] = bytes(4096)
    items, _ = listed(save(tmp_path / f"a.{suffix}", PACK[suffix](bytes(data))))
    good = [e.item.member for e in read_all(items) if e.error is None]
    assert good == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert [i.error is None for i in items].count(False) == 1


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_bytes_behind_the_end_are_counted(tmp_path: Path, suffix: str) -> None:
    data, tail = tar_bytes(images(0, 2)), b"signature " * 99
    path = save(tmp_path / f"a.{suffix}", PACK[suffix](data + tail))
    items, reasons = listed(path)
    assert contents(items) == data_of(0, 2)
    assert reasons == {"bytes behind a tar's end": 1}
    skipped = [f.uri for f in list_items(config(path), IMAGE) if isinstance(f, Skipped)]
    assert skipped[0].endswith(f"#~bytes={len(data)}-{len(data) + len(tail)}")


def test_the_last_header_zeroed_is_no_end_mark(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(images(0, 2)))
    at = listed(save(tmp_path / "p.tar", bytes(data)))[0][1].offset
    assert at is not None
    data[at - BLOCK : at] = bytes(BLOCK)
    items, _ = listed(save(tmp_path / "a.tar", bytes(data)))
    assert contents(items) == [picture(0), ErrorKind.BROKEN_ARCHIVE]


def sparse_tar(form: str) -> tuple[bytes, bytes]:
    """A tar with a sparse image, and what the image is; as GNU tar or bsdtar write it."""
    pieces = [(0, b"\xff\xd8\xff" + b"a" * 1021), (4096, b"b" * 512), (9000, b"c" * 100)]
    real = 10_000
    content = bytearray(real)
    for at, part in pieces:
        content[at : at + len(part)] = part
    data = b"".join(part for _, part in pieces)
    info = tarfile.TarInfo("s.jpg")
    info.mode = 0o644
    if form == "old":
        info.type, info.size = tarfile.GNUTYPE_SPARSE, len(data)
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        spots = b"".join(b"%011o\0%011o\0" % (at, len(part)) for at, part in pieces)
        block[386 : 386 + len(spots)] = spots
        block[483:495] = b"%011o\0" % real
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block) + data + bytes(-len(data) % BLOCK), bytes(content)
    numbers = [str(n) for at, part in pieces for n in (at, len(part))]
    headers = {"GNU.sparse.name": "s.jpg"}
    if form == "1.0":
        text = "\n".join([str(len(pieces)), *numbers, ""]).encode()
        data = text + bytes(-len(text) % BLOCK) + data
        headers.update({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
        headers["GNU.sparse.realsize"] = str(real)
    else:
        headers.update({"GNU.sparse.size": str(real), "GNU.sparse.numblocks": str(len(pieces))})
        headers["GNU.sparse.map"] = ",".join(numbers)
    info.name, info.size, info.pax_headers = "GNUSparseFile.0/s.jpg", len(data), headers
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK), bytes(content)


@pytest.mark.parametrize("form", ["old", "0.1", "1.0"])
@pytest.mark.parametrize("suffix", PACK)
def test_sparse_members(tmp_path: Path, suffix: str, form: str) -> None:
    sparse, content = sparse_tar(form)
    data = sparse + tar_bytes(images(1, 3))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:  # the standard library agrees
        member = tar.extractfile("s.jpg")
        assert member is not None and member.read() == content
    items, reasons = listed(save(tmp_path / f"a.{suffix}", PACK[suffix](data)))
    assert names(items) == [f"a.{suffix}#{n}.jpg" for n in "s12"] and reasons == {}
    assert contents(items) == [content, picture(1), picture(2)]
    assert contents(items[::-1]) == [picture(2), picture(1), content]
    changed = data.replace(b"s.jpg", b"t.jpg")
    assert len(changed) == len(data)


def test_sparse_claims_cost_no_memory(tmp_path: Path) -> None:
    data = sparse_tar("1.0")[0].replace(b"GNU.sparse.realsize=10000", b"GNU.sparse.realsize=99999")
    items, _ = listed(save(tmp_path / "a.tar", data + bytes(1024)))
    from textspot_ray.config import ImageConfig

    got = read_all(items, image=ImageConfig(max_bytes=50_000))
    assert [e.error.kind for e in got if e.error] == [ErrorKind.TOO_LARGE]
    many = sparse_tar("1.0")[0].replace(b"\n3\n0\n", b"\n9\n0\n").replace(b"3\n0\n", b"9\n0\n", 1)
    items, _ = listed(save(tmp_path / "b.tar", many + bytes(1024)))
    assert all(e.error is not None for e in read_all(items))


@pytest.mark.parametrize(
    "text",
    [
        b"%d\n" % 2**16 + b"".join(b"%020d\n%020d\n" % (i, 1) for i in range(2**16)),
        b"3\n" + b"0" * 4_000_000,
        b"3\n0\n" + b"9" * 5000 + b"\n" * 9,
    ],
    ids=["many pieces", "no end of a line", "a number of 5000 digits"],
)
def test_maps_of_sparse_files_cost_neither_time_nor_memory(text: bytes) -> None:
    info = tarfile.TarInfo("GNUSparseFile.0/s.jpg")
    info.size = len(text)
    info.pax_headers = {f"GNU.sparse.{k}": v for k, v in {"major": "1", "minor": "0"}.items()}
    info.pax_headers.update({"GNU.sparse.name": "s.jpg", "GNU.sparse.realsize": "10"})
    data = info.tobuf(tarfile.PAX_FORMAT) + text + bytes(-len(text) % BLOCK) + bytes(1024)
    read = 0

    def read_range(start: int, stop: int) -> bytes:
        nonlocal read
        read += stop - start
        return data[start:stop]

    start_s = time.process_time()
    (found,) = list_tar(RangeCursor(read_range, len(data), BLOCK), lambda _: False)
    assert time.process_time() - start_s < 4
    assert isinstance(found, Member) and found.name == b"s.jpg"
    is_sound = text.startswith(b"65536")
    assert (found.error is None) == is_sound
    assert read < (len(data) + 4096 if is_sound else 16_384)


# ---------------------------------------------------------------- zip


def end_of(data: bytes) -> tuple[int, int, int, int]:
    at = data.rindex(b"PK\5\6")
    _, _, _, _, count, length, start, _ = struct.unpack("<4s4H2LH", data[at : at + 22])
    return at, count, length, start


def test_a_zip_full_of_end_marks_costs_few_reads() -> None:
    data = b"PK\3\4" + b"PK\5\6" * 250_000
    reads = 0

    def read_range(start: int, stop: int) -> bytes:
        nonlocal reads
        reads += 1
        return data[start:stop]

    with pytest.raises(ContainerError):
        list(list_zip(read_range, len(data)))
    assert reads < 1000


def with_count(data: bytes, count: int) -> bytes:
    at = data.rindex(b"PK\5\6")
    return data[: at + 8] + struct.pack("<HH", count, count) + data[at + 12 :]


def test_the_directorys_length_decides_not_the_count(tmp_path: Path) -> None:
    data = zip_bytes(images(0, 5), 8)
    for count in (0, 3, 5):
        items, _ = listed(save(tmp_path / "a.zip", with_count(data, count)))
        assert contents(items) == data_of(0, 5)
    items, _ = listed(save(tmp_path / "a.zip", with_count(data, 6)))
    assert contents(items) == [*data_of(0, 5), ErrorKind.BROKEN_ARCHIVE]


def test_more_members_than_the_count_can_say(tmp_path: Path) -> None:
    count = 65_540
    one = zip_bytes([("a.txt", b"x")])
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entries = one[start:end] * count
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, len(entries), start, 0)
    items, reasons = listed(save(tmp_path / "a.zip", one[:start] + entries + last))
    assert (items, reasons) == ([], {"not an image": count})


@pytest.mark.parametrize("saturated", [True, False])
@pytest.mark.parametrize("extensible", [b"", b"x" * 40])
@pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\n" * 9])
def test_zip64_end_records(
    tmp_path: Path, saturated: bool, extensible: bytes, prefix: bytes
) -> None:
    data = zip_bytes(images(0, 3), 8)
    at, count, length, start = end_of(data)
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44 + len(extensible), 45, 45, 0, 0, count, count, length, start
    )
    where = at + (len(prefix) if extensible else 0)  # found by the locator, or by its place
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, where, 1)
    end = (
        struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
        if saturated
        else data[at:]
    )
    whole = prefix + data[:at] + record + extensible + locator + end
    items, reasons = listed(save(tmp_path / "a.zip", whole))
    assert contents(items) == data_of(0, 3) and reasons == {}


def test_bytes_before_and_behind_a_zip(tmp_path: Path) -> None:
    data = zip_bytes(images(0, 3), 8)
    for prefix, suffix in [(b"x" * 70_000, b""), (b"", b"\0" * 3000), (b"y" * 9, b"z" * 300_000)]:
        items, _ = listed(save(tmp_path / "a.zip", prefix + data + suffix))
        assert contents(items) == data_of(0, 3), (len(prefix), len(suffix))
    comment = b"PK\5\6 is not the end" * 3
    at = data.rindex(b"PK\5\6")
    whole = data[: at + 20] + struct.pack("<H", len(comment)) + comment
    assert contents(listed(save(tmp_path / "a.zip", whole))[0]) == data_of(0, 3)


def test_offsets_modulo_four_gib_as_macos_writes_them(tmp_path: Path) -> None:
    """A sparse file of 9 GiB: members lie behind 4 and 8 GiB, all fields have 32 bits."""
    plain = zip_bytes(images(0, 4))
    at, _, length, start = end_of(plain)
    places = [0, 5 << 30, (5 << 30) + 70_000, 9 << 30]
    path = tmp_path / "a.zip"
    directory, offset = bytearray(), start
    with path.open("wb") as file:
        entry = start
        for place in places:
            fields = struct.unpack("<4s4B4HL2L5H2L", plain[entry : entry + 46])
            size = 46 + fields[12] + fields[13] + fields[14]
            local, packed = fields[18], fields[10]
            file.seek(place)
            file.write(plain[local : local + 30 + fields[12] + packed])
            changed = bytearray(plain[entry : entry + size])
            changed[42:46] = struct.pack("<L", place % 2**32)
            directory += changed
            entry += size
        offset = (9 << 30) + 100_000
        file.seek(offset)
        file.write(directory)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, length, offset % 2**32, 0))
    assert at > 0
    items, reasons = listed(path)
    assert [i.offset for i in items] == places and reasons == {}
    assert contents(items) == data_of(0, 4)


def test_split_zips_are_told_for_what_they_are(tmp_path: Path) -> None:
    data = zip_bytes(images(0, 3))
    at = data.rindex(b"PK\5\6")
    last = data[: at + 4] + struct.pack("<H", 2) + data[at + 6 :]
    items, _ = listed(save(tmp_path / "a.zip", last))
    assert items[0].error is not None and "part 3 of a split zip" in items[0].error.message
    assert "zip -s 0" in items[0].error.message
    save(tmp_path / "a.z01", b"PK\7\x08" + data[:100])
    save(tmp_path / "b.7z.001", b"7z..")
    assert listed(tmp_path)[1] == {"archive of a kind that is not read": 2}


def test_an_entry_that_cannot_be_used_costs_no_other(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(images(0, 4)))
    _, _, _, start = end_of(bytes(data))
    second = data.index(b"PK\1\2", start + 4)
    data[second + 42 : second + 46] = struct.pack("<L", 2**31)  # behind the end of the file
    third = data.index(b"PK\1\2", second + 4)
    data[third + 20 : third + 24] = b"\xff" * 4  # says zip64, but has no such field
    items, _ = listed(save(tmp_path / "a.zip", bytes(data)))
    broken = ErrorKind.BROKEN_ARCHIVE
    assert contents(items) == [picture(0), broken, broken, picture(3)]
    assert names(items) == [f"a.zip#{i}.jpg" for i in range(4)]


# ---------------------------------------------------------------- folders of systems


@pytest.mark.parametrize("packed", [False, True])
def test_thumbnails_and_recycle_bins(tmp_path: Path, packed: bool) -> None:
    paths = ["a.jpg", "@eaDir/a.jpg/THUMB.jpg", "#recycle/b.jpg", "$RECYCLE.BIN/S-1/c.jpg"]
    paths += [".thumbnails/d.png", "x/@eaDir/e.jpg", "__MACOSX/f.jpg", "@eaDirectory/g.jpg"]
    source = tmp_path / "in"
    if packed:
        source = save(tmp_path / "in.zip", zip_bytes([(p, picture(1)) for p in paths]))
    else:
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(picture(1))
    items, reasons = listed(source)
    assert sorted(n.rpartition("#")[2] for n in names(items)) == ["a.jpg", "g.jpg"]
    assert reasons == {"thumbnails or recycle bin of a system": 5, "macOS metadata": 1}
    assert len(listed(source, system_folders=True)[0]) == len(paths)


# ---------------------------------------------------------------- what other tools see


def fixtures(folder: Path) -> list[Path]:
    """Archives of every form that other tools may be asked about."""
    members: list[tuple[Any, bytes]] = [*images(0, 4), ("d/notes.txt", b"x"), ("d/e.png", b"")]
    tar, packed = tar_bytes(members), zip_bytes(members, 8)
    at, count, length, start = end_of(packed)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    made = {
        "plain.tar": tar,
        "pax.tar": tar_bytes(members, format=tarfile.PAX_FORMAT),
        "ustar.tar": tar_bytes(members, format=tarfile.USTAR_FORMAT),
        "long.tar": tar_bytes([("l" * 180 + ".jpg", picture(1)), *members]),
        "sparse.tar": sparse_tar("1.0")[0] + tar,
        "old_sparse.tar": sparse_tar("old")[0] + tar,
        "plain.zip": packed,
        "stored.zip": zip_bytes(members),
        "lzma.zip": zip_bytes(members, zipfile.ZIP_LZMA),
        "zip64.zip": packed[:at] + record + locator + packed[at:],
        "count.zip": with_count(packed, 3),
        "prefix.zip": b"#!/bin/sh\n" * 20 + packed,
    }
    made.update({f"plain.{s}": PACK[s](tar) for s in PACK if s != "tar"})
    for name, data in made.items():
        save(folder / name, data)
    try:
        import py7zr
    except ImportError:
        pass
    else:
        with py7zr.SevenZipFile(folder / "plain.7z", "w") as archive:
            for name, data in members:
                archive.writestr(data, name)
    return sorted(folder.iterdir())


def seen_by_tools(path: Path) -> dict[str, set[str]]:
    """Regular files that each installed tool lists."""
    seen: dict[str, set[str]] = {}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            seen["zipfile"] = {i.filename for i in archive.infolist() if not i.is_dir()}
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            seen["tarfile"] = {m.name for m in tar if m.isreg()}
    commands = {"bsdtar": ["bsdtar", "-tf"], "unzip": ["unzip", "-Z1"], "tar": ["tar", "-tf"]}
    for tool, command in commands.items():
        if shutil.which(tool) is None or (tool == "unzip") != (path.suffix == ".zip"):
            continue
        if tool == "tar" and path.suffix in (".zip", ".7z"):
            continue
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
        )
        if done.returncode in (0, 1):
            seen[tool] = {n for n in done.stdout.splitlines() if n and not n.endswith("/")}
    for tool in ("7z", "7zz", "7za"):
        if shutil.which(tool) is not None and ".tar." not in path.name:
            done = subprocess.run(
                [tool, "l", "-ba", "-slt", str(path)], capture_output=True, text=True
            )
            if done.returncode in (0, 1):
                lines = done.stdout.splitlines()
                # 7-Zip shows sparse members of pax archives under their stand-in's name.
                paths = {n[7:].replace("GNUSparseFile.0/", "") for n in lines if "Path = " in n[:7]}
                seen[tool] = paths - {str(path)}
            break
    return seen


def test_no_member_that_another_tool_sees_is_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tools: set[str] = set()
    made = fixtures(tmp_path / "in")
    assert len(made) >= 16
    for path in made:
        found = list(list_items(config(path), IMAGE))
        ours = {(f.uri if isinstance(f, Skipped) else f.image_id).rpartition("#")[2] for f in found}
        for tool, theirs in seen_by_tools(path).items():
            tools.add(tool)
            assert theirs <= ours, (path.name, tool)
            assert len(theirs) >= 6, (path.name, tool)
    assert {"zipfile", "tarfile"} <= tools


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_last_member_of_nothing_but_zeros_is_counted(tmp_path: Path, suffix: str) -> None:
    members = [(f"{n}.jpg", picture(n) + bytes(20_000)) for n in range(3)]
    whole = tar_bytes(members)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        last = tar.getmembers()[-1]
    zeroed = whole[: last.offset] + bytes(len(whole) - last.offset)
    for data, expected in ((whole, 0), (zeroed, 1), (whole + bytes(512 * 40), 1)):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(gzip.compress(data) if suffix == "tar.gz" else data)
        items, reasons = listed(path)
        assert len(items) == (2 if data is zeroed else 3)
        assert reasons.get(ZEROS_AT_END, 0) == expected
    for blocking in range(1, 21):  # as `tar -b` pads
        size = 512 * blocking
        end = last.offset_data + -(-last.size // 512) * 512 + 1024
        path.write_bytes(b"")
        path = tmp_path / "b.tar"
        path.write_bytes(whole[:end] + bytes(-end % size))
        assert not listed(path)[1]
