from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archives import listed, names, picture, read_all, tar_bytes, zip_bytes, zstd
from textspot_ray.config import ImageConfig
from textspot_ray.errors import SourceError
from textspot_ray.records import ErrorKind, Item

PACK: dict[str, Any] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.zst": zstd,
    "tar.bz2": lambda data: bz2.compress(data, 1),
    "tar.xz": lzma.compress,
}


def link(kind: bytes, name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def contents(items: list[Item], **options: Any) -> list[bytes | ErrorKind | None]:
    return [e.error.kind if e.error else e.data for e in read_all(items, **options)]


# ---------------------------------------------------------------- tar


@pytest.mark.parametrize("suffix", PACK)
def test_tar_of_any_packing(tmp_path: Path, suffix: str) -> None:
    members = [(f"d/{i:02d}.jpg", picture(i)) for i in range(20)]
    members += [("d/gt.txt", b"words"), ("d/scan", picture(3, "PNG")), ("d/raw", b"\0" * 700)]
    path = save(tmp_path / f"a.{suffix}", PACK[suffix](tar_bytes(members)))
    items, reasons = listed(path)
    assert names(items) == [f"{i:02d}.jpg" for i in range(20)] + ["scan"]
    assert reasons == {"not an image": 2}
    assert {i.container for i in items} == {"tar" if suffix == "tar" else "tar_stream"}
    assert contents(items) == [d for n, d in members[:20]] + [members[21][1]]


def test_packing_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tar", gzip.compress(tar_bytes([("x.jpg", picture())])))
    items, _ = listed(path)
    assert items[0].container == "tar_stream"
    assert contents(items) == [picture()]


@pytest.mark.parametrize(
    "options", [{"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}]
)
@pytest.mark.parametrize("suffix", ["tar", "tar.zst"])
def test_hostile_names_in_tars(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    raws = ["../../x.jpg", "/etc/y.jpg", "./z.jpg", "sp ace'\"\n.jpg", "né日.jpg", "by\udcffte.jpg"]
    raws += ["long/" * 60 + "n.jpg", "a~2.jpg", "#.jpg"]
    members = [(raw, picture(i)) for i, raw in enumerate(raws)]
    path = save(tmp_path / f"a.{suffix}", PACK[suffix](tar_bytes(members, **options)))
    before = {p for p in tmp_path.parent.rglob("*")}
    items, _ = listed(path)
    assert contents(items) == [data for _, data in members]
    assert items[0].image_id.endswith("a." + suffix + "#../../x.jpg")
    assert items[5].member == "by\\xffte.jpg" and "by%FFte.jpg" in items[5].image_id
    assert {p for p in tmp_path.parent.rglob("*")} == before


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_folders_and_hidden_members_are_passed_with_a_reason(
    tmp_path: Path, suffix: str
) -> None:
    members: list[Any] = [
        ("a.jpg", picture()),
        link(tarfile.SYMTYPE, "b.jpg", "/etc/passwd"),
        link(tarfile.LNKTYPE, "c.jpg", "a.jpg"),
        link(tarfile.DIRTYPE, "d.jpg", ""),
        link(tarfile.FIFOTYPE, "e.jpg", ""),
        (".hidden/f.jpg", picture()),
        ("__MACOSX/._g.jpg", picture()),
        ("inner.tar.gz", b"..."),
        ("inner.7z", b"..."),
    ]
    items, reasons = listed(save(tmp_path / f"a.{suffix}", PACK[suffix](tar_bytes(members))))
    assert names(items) == [f"a.{suffix}#a.jpg"]
    assert reasons == {
        "symbolic link in a tar": 1,
        "hard link in a tar": 1,
        "directory": 1,
        "not a regular file": 1,
        "hidden file": 1,
        "macOS metadata": 1,
        "archive inside an archive": 2,
    }


def test_repeated_members_are_all_there(tmp_path: Path) -> None:
    members = [("a.jpg", picture(i)) for i in range(3)] + [("a.jpg~2", picture(9))]
    for name, data in [("t.tar", tar_bytes(members)), ("z.zip", zip_bytes(members))]:
        items, reasons = listed(save(tmp_path / name, data))
        assert names(items) == [f"{name}#a.jpg{t}" for t in ("", "~2", "~3")] + (
            [f"{name}#a.jpg%7E2"]
        )
        assert contents(items) == [picture(0), picture(1), picture(2), picture(9)]
        assert reasons == {}


@pytest.mark.parametrize("suffix", PACK)
def test_tar_cut_anywhere_keeps_the_members_before_and_says_so(tmp_path: Path, suffix: str) -> None:
    members = [(f"{i}.jpg", picture(i, size=(300, 200))) for i in range(8)]
    plain = tar_bytes(members)
    data = PACK[suffix](plain)
    whole = [d for _, d in members]
    for cut in (1, 700, len(data) // 4, len(data) // 2, len(data) - 300, len(data) - 20):
        items, _ = listed(save(tmp_path / f"a.{suffix}", data[:cut]))
        good = [i for i in items if i.error is None]
        assert contents(good) == whole[: len(good)]
        errors = [i for i in items if i.error is not None]
        if suffix == "tar":
            # A cut in the padding behind the two end blocks loses nothing.
            assert len(errors) == (cut < plain.rindex(picture(7, size=(300, 200))[-9:]) + 600)
            assert len(good) == sum(i.offset + i.size <= cut for i in listed_whole(tmp_path, plain))
        else:
            assert len(errors) == 1 and items[-1] is errors[0]
        for item in errors:
            assert item.error is not None
            assert item.error.kind is ErrorKind.BROKEN_ARCHIVE
            assert item.image_id.endswith(f"/a.{suffix}")
            assert contents([item]) == [ErrorKind.BROKEN_ARCHIVE]


def listed_whole(folder: Path, data: bytes) -> list[Any]:
    return listed(save(folder / "whole.tar", data))[0]


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.zst", "tar.bz2", "tar.xz"])
def test_compressed_tar_damaged_in_the_middle(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1)
    members = [(f"{i:02d}.jpg", b"\xff\xd8\xff" + noise.bytes(20_000)) for i in range(30)]
    data = bytearray(PACK[suffix](tar_bytes(members)))
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(100)
    items, _ = listed(save(tmp_path / f"a.{suffix}", bytes(data)))
    assert items[-1].error is not None
    assert items[-1].error.kind is ErrorKind.BROKEN_ARCHIVE
    assert sum(i.error is not None for i in items) <= 2  # and perhaps a header that was hit
    got = contents(items[:-1])
    # Up to the damage all is well; behind it a member may be wrong, but then the row says so.
    assert got[:10] == [d for _, d in members[:10]]


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.zst", "tar.bz2", "tar.xz"])
def test_wrong_checksum_behind_the_last_member_is_noticed(tmp_path: Path, suffix: str) -> None:
    data = bytearray(PACK[suffix](tar_bytes([("a.jpg", picture())])))
    assert len(listed(save(tmp_path / f"a.{suffix}", bytes(data)))[0]) == 1
    at = {"tar.gz": -8, "tar.zst": -1, "tar.bz2": -3, "tar.xz": -1}[suffix]
    data[at] ^= 0xFF
    items, _ = listed(save(tmp_path / f"a.{suffix}", bytes(data)))
    assert items[-1].error is not None


def test_bytes_behind_gzip_data_are_counted(tmp_path: Path) -> None:
    data = gzip.compress(tar_bytes([("a.jpg", picture())]))
    for tail, counted in ((b"\0" * 100, 0), (b"garbage" * 10, 1)):
        items, reasons = listed(save(tmp_path / "a.tgz", data + tail))
        assert contents(items) == [picture()]
        assert reasons == ({"bytes behind a tar's end": counted} if counted else {})


def test_reading_goes_on_behind_a_damaged_header(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", picture(i)) for i in range(6)]
    data = bytearray(tar_bytes(members))
    at = listed_whole(tmp_path, bytes(data))[3].offset - 512
    data[at + 20] ^= 0xFF
    items, _ = listed(save(tmp_path / "a.tar", bytes(data)))
    assert [i.error is None for i in items] == [True, True, True, False, True, True]
    error = items[3].error
    assert error is not None and error.kind is ErrorKind.BROKEN_ARCHIVE
    size = 512 + len(picture(3)) + -len(picture(3)) % 512
    assert f"at byte {at}; the {size} bytes" in error.message
    assert items[3].image_id.endswith(f"a.tar#~bytes={at}-{at + size}")
    assert contents(items[4:]) == [picture(4), picture(5)]


def test_tar_without_end_mark_keeps_all_members_but_says_so(tmp_path: Path) -> None:
    members = [("0.jpg", picture(0))]
    data = tar_bytes(members)
    items, _ = listed(
        save(tmp_path / "a.tar", data[: 512 + len(picture(0)) + (-len(picture(0)) % 512)])
    )
    assert [i.error is None for i in items] == [True, False]


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"\x1f\x8b\x08"])
def test_what_is_no_tar_is_one_error_row(tmp_path: Path, data: bytes) -> None:
    items, reasons = listed(save(tmp_path / "a.tar", data))
    assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]
    assert len(items) == 1 and not reasons


def test_sparse_and_unknown_members_do_not_derail(tmp_path: Path) -> None:
    vendor = tarfile.TarInfo("vendor.jpg")
    vendor.type, vendor.size = b"Z", 700
    buffer = io.BytesIO(tar_bytes([("a.jpg", picture(1))])[:-1024].rstrip(b"\0"))
    first = tar_bytes([("a.jpg", picture(1))])
    end = 512 + len(picture(1)) + (-len(picture(1)) % 512)
    data = (
        first[:end]
        + vendor.tobuf(tarfile.GNU_FORMAT)
        + bytes(1024)
        + tar_bytes([("b.jpg", picture(2))])
    )
    assert buffer.tell() == 0
    items, reasons = listed(save(tmp_path / "a.tar", data))
    assert contents(items) == [picture(1), picture(2)]
    assert reasons == {"not a regular file": 1}


def test_giant_claims_in_headers_cost_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("big.jpg")
    info.size = 8**11 - 1
    for suffix in ("tar", "tar.gz"):
        data = PACK[suffix](info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        items, _ = listed(save(tmp_path / f"a.{suffix}", data))
        assert [i.error is not None for i in items] == [True]
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**32
    items, _ = listed(save(tmp_path / "b.tar", name.tobuf(tarfile.GNU_FORMAT) + bytes(9999)))
    assert [i.error is not None for i in items] == [True]


def test_compressed_tar_bomb_is_bounded(tmp_path: Path) -> None:
    bomb = tar_bytes([("a.jpg", picture()), ("bomb.jpg", bytes(50_000_000)), ("c.jpg", picture(2))])
    items, _ = listed(save(tmp_path / "a.tar.zst", zstd(bomb)))
    got = contents(items, image=ImageConfig(max_bytes=1_000_000))
    assert got == [picture(), ErrorKind.TOO_LARGE, picture(2)]


# ---------------------------------------------------------------- zip


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_zip_by_method(tmp_path: Path, method: int) -> None:
    members = [(f"d/{i}.png", picture(i, "PNG")) for i in range(10)]
    members += [("d/readme.txt", b"x"), ("d/scan", picture(4)), ("d/other", b"words" * 99)]
    items, reasons = listed(save(tmp_path / "a.zip", zip_bytes(members, method)))
    assert names(items) == [f"{i}.png" for i in range(10)] + ["scan"]
    assert reasons == {"not an image": 2}
    assert contents(items) == [d for _, d in members[:10]] + [picture(4)]


def zstd_zip(name: bytes, content: bytes, claimed: int | None = None) -> bytes:
    import zlib

    data = zstd(content)
    size = len(content) if claimed is None else claimed
    crc = zlib.crc32(content)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 63, 0, 93, 0, 0, crc, len(data), size, len(name), 0)
    central = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\1\2", 63, 3, 63, 0, 0, 93, 0, 0, crc, len(data), size, len(name),
        0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    start = len(local) + len(name) + len(data)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central) + len(name), start, 0)
    return local + name + data + central + name + end


def test_zip_member_by_a_method_that_zipfile_does_not_read(tmp_path: Path) -> None:
    items, _ = listed(save(tmp_path / "a.zip", zstd_zip(b"a.bmp", picture(1, "BMP"))))
    error = read_all(items)[0].error
    assert error is not None and error.kind is ErrorKind.UNSUPPORTED
    assert "Zstandard" in error.message and "repack" in error.message


@pytest.mark.parametrize("method", METHODS[1:])
def test_zip_bomb_is_bounded_while_inflating(tmp_path: Path, method: int) -> None:
    data = zip_bytes([("bomb.png", bytes(30_000_000)), ("b.jpg", picture())], method)
    items, _ = listed(save(tmp_path / "a.zip", data))
    got = contents(items, image=ImageConfig(max_bytes=1_000_000))
    assert got == [ErrorKind.TOO_LARGE, picture()]


def test_zip_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    data = zip_bytes([("a.bmp", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    size = struct.pack("<L", 50_000_000)
    assert data.count(size) == 2
    items, _ = listed(save(tmp_path / "a.zip", data.replace(size, struct.pack("<L", 10))))
    assert contents(items, image=ImageConfig(max_bytes=1_000_000)) == [ErrorKind.TOO_LARGE]


def test_zip_links_folders_and_hidden(tmp_path: Path) -> None:
    symlink = zipfile.ZipInfo("link.jpg")
    symlink.create_system, symlink.external_attr = 3, 0o120777 << 16
    members: list[Any] = [("a.jpg", picture()), (symlink, b"/etc/passwd"), ("d/", b"")]
    members += [("__MACOSX/._a.jpg", b"x"), (".b.jpg", picture()), ("..\\w\\c.jpg", picture(2))]
    items, reasons = listed(save(tmp_path / "a.zip", zip_bytes(members)))
    assert contents(items) == [picture(), picture(2)]
    assert reasons == {
        "symbolic link in a zip": 1,
        "directory": 1,
        "macOS metadata": 1,
        "hidden file": 1,
    }


def test_encrypted_zip_member_is_a_row(tmp_path: Path) -> None:
    data = bytearray(zip_bytes([("a.jpg", picture()), ("b.jpg", picture(1))]))
    data[6] |= 1  # local header of the first
    data[data.index(b"PK\x01\x02") + 8] |= 1
    items, _ = listed(save(tmp_path / "a.zip", bytes(data)))
    encrypted, plain = read_all(items)
    assert plain.data == picture(1)
    assert encrypted.error is not None and encrypted.error.kind is ErrorKind.UNSUPPORTED
    assert "encrypted" in encrypted.error.message


def test_names_in_zips(tmp_path: Path) -> None:
    members = [("né日.jpg", picture(1)), ("sp ace\n'.jpg", picture(2)), ("../../x.jpg", picture(3))]
    data = zip_bytes(members).replace("né".encode(), b"n\xff\xfe")
    items, _ = listed(save(tmp_path / "a.zip", data))
    assert contents(items) == [picture(1), picture(2), picture(3)]
    assert "n%FF%FE" in items[0].image_id
    assert items[2].image_id.endswith("#../../x.jpg")


def test_zip_streamed_behind_data_descriptors_comment_and_prefix(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise OSError("not seekable")

        def tell(self) -> int:
            raise OSError("not seekable")

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", picture(1))
        archive.writestr("b.jpg", picture(2))
        archive.comment = b"c" * 60_000
    for prefix in (b"", b"#!/bin/sh\n" * 50):
        items, _ = listed(save(tmp_path / "a.zip", prefix + pipe.getvalue()))
        assert contents(items) == [picture(1), picture(2)]


def test_zip64(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            with archive.open(f"{i}.jpg", "w", force_zip64=True) as file:
                file.write(picture(i))
    data = buffer.getvalue()
    assert contents(listed(save(tmp_path / "a.zip", data))[0]) == [picture(i) for i in range(3)]
    # The same with a zip64 end record, as archives of more than 65,535 members have it.
    at = data.rindex(b"PK\5\6")
    _, _, _, count, _, length, start, _ = struct.unpack("<4s4H2LH", data[at : at + 22])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    items, _ = listed(save(tmp_path / "b.zip", data[:at] + record + locator + end))
    assert contents(items) == [picture(i) for i in range(3)]


def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    count = 66_000
    one = zip_bytes([("a.txt", b"x")])
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entries = one[start:end] * count
    at = start + len(entries)
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entries), start, 0)
    path = save(tmp_path / "a.zip", one[:start] + entries + record + locator + last)
    items, reasons = listed(path)
    assert (items, reasons) == ([], {"not an image": count})


def test_broken_zip_directory_is_one_row(tmp_path: Path) -> None:
    data = zip_bytes([(f"{i}.jpg", picture(i)) for i in range(5)])
    at = data.index(b"PK\x01\x02")
    for broken in (data[:at], data[:-4], data[:at] + b"XX" + data[at + 2 :], b"", b"PK\x03\x04"):
        items, _ = listed(save(tmp_path / "a.zip", broken))
        assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]
        assert len(items) == 1
    third = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"][2]
    items, _ = listed(save(tmp_path / "a.zip", data[:third] + b"XXXX" + data[third + 4 :]))
    assert [i.error is None for i in items] == [True, True, False]


def test_flipped_bit_in_a_zip_member(tmp_path: Path) -> None:
    for method in METHODS:
        data = bytearray(zip_bytes([("a.jpg", picture(1)), ("b.jpg", picture(2))], method))
        data[200] ^= 0x10
        first, second = contents(listed(save(tmp_path / "a.zip", bytes(data)))[0])
        assert (first, second) == (ErrorKind.CORRUPT, picture(2))


# ---------------------------------------------------------------- Parquet


def save_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_with_bytes_and_other_columns(tmp_path: Path) -> None:
    images = [picture(i) for i in range(50)]
    path = save_parquet(
        tmp_path / "a.parquet",
        {"image": images, "label": [float("nan"), *range(49)], "key": [f"k{i}" for i in range(50)]},
        row_group_size=7,
    )
    items, _ = listed(path)
    assert contents(items) == images
    assert contents([items[i] for i in (40, 3, 3, 20, 21)]) == [
        images[i] for i in (40, 3, 3, 20, 21)
    ]
    assert items[0].extra == '{"label": null, "key": "k0"}'
    assert names(items)[:2] == ["a.parquet#0", "a.parquet#1"]
    items, _ = listed(path, id_column="key")
    assert [i.image_id for i in items[:2]] == ["k0", "k1"]
    assert items[0].extra == '{"label": null}'


def test_parquet_of_hugging_face_and_nulls(tmp_path: Path) -> None:
    rows = [{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(3)]
    rows.append({"bytes": None, "path": "gone.jpg"})
    path = save_parquet(tmp_path / "a.parquet", {"image": rows})
    assert contents(listed(path)[0]) == [picture(0), picture(1), picture(2), ErrorKind.EMPTY_FILE]


def test_parquet_columns_are_chosen_or_asked_for(tmp_path: Path) -> None:
    two = {"left": [picture(1)], "right": [picture(2)]}
    path = save_parquet(tmp_path / "a.parquet", two)
    with pytest.raises(
        SourceError, match=r"several columns hold images \(left, right\).*image_column"
    ):
        listed(path)
    from tests.support.archives import config

    chosen = config(path, image_column="right")
    items, _ = listed(path, image_column="right")
    assert read_all(items, chosen)[0].data == picture(2)
    with pytest.raises(SourceError, match="no image bytes in column 'x'"):
        listed(path, image_column="x")
    with pytest.raises(SourceError, match="no column 'nope'"):
        listed(path, image_column="right", id_column="nope")


def test_broken_parquet_is_a_row(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", {"image": [picture(1)] * 10})
    data = path.read_bytes()
    for broken in (data[:-10], data[: len(data) // 2], b"", b"PAR1"):
        items, _ = listed(save(tmp_path / "b.parquet", broken))
        assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]
    damaged = bytearray(data)
    damaged[8:40] = bytes(32)
    items, _ = listed(save(tmp_path / "c.parquet", bytes(damaged)))
    assert all(isinstance(c, ErrorKind) or c for c in contents(items))


def test_parquet_without_images_in_a_folder_is_passed(tmp_path: Path) -> None:
    save_parquet(tmp_path / "words.parquet", {"text": ["a"]})
    (tmp_path / "x.jpg").write_bytes(picture())
    items, reasons = listed(tmp_path)
    assert names(items) == ["x.jpg"]
    assert reasons == {"Parquet without image bytes": 1}


# ---------------------------------------------------------------- anything at all


TAR = tar_bytes([(f"{i}.jpg", picture(i)) for i in range(5)], format=tarfile.PAX_FORMAT)
ZIP = zip_bytes([(f"{i}.jpg", picture(i)) for i in range(5)], 8)
SEEDS = {
    "a.tar": TAR,
    "a.zip": ZIP,
    "a.tar.gz": gzip.compress(TAR),
    "a.tar.zst": zstd(TAR),
    "a.tar.bz2": bz2.compress(TAR),
    "a.tar.xz": lzma.compress(TAR),
}


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(SEEDS)),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    cut=st.floats(0, 1),
)
def test_damaged_archives_never_raise_and_never_invent(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    flips: list[tuple[float, int]],
    cut: float,
) -> None:
    data = bytearray(SEEDS[name])
    for where, value in flips:
        data[int(where * (len(data) - 1))] = value
    if cut < 0.5:
        data = data[: int(2 * cut * len(data))]
    path = save(tmp_path_factory.mktemp("a") / name, bytes(data))
    items, _ = listed(path)
    for encoded in read_all(items):
        assert (encoded.data is None) != (encoded.error is None)
    whole = bytes(data) == SEEDS[name]
    if whole:
        assert contents(items) == [picture(i) for i in range(5)]


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from([*sorted(SEEDS), "a.parquet"]),
    magic=st.sampled_from(
        [b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh9", b"PAR1"]
    ),
    tail=st.binary(max_size=1500),
)
def test_random_bytes_under_an_archives_name_never_raise(
    tmp_path_factory: pytest.TempPathFactory, name: str, magic: bytes, tail: bytes
) -> None:
    path = save(tmp_path_factory.mktemp("r") / name, magic + tail)
    items, _ = listed(path)
    read_all(items)
