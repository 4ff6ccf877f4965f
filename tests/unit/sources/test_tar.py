from __future__ import annotations

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.archives import picture, tar_bytes
from textspot_ray.sources.kinds.base import Member
from textspot_ray.sources.kinds.compression import RangeCursor
from textspot_ray.sources.kinds.tar import list_tar, read_header

NAME = st.text(alphabet="abé/. ", min_size=1, max_size=300).filter(lambda n: n.strip("/ ."))


@given(
    name=NAME,
    size=st.one_of(st.integers(0, 10**6), st.just(8**11), st.just(2**60)),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE]),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_headers_as_the_standard_library_reads_them(
    name: str, size: int, kind: bytes, form: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    try:
        block = info.tobuf(form, "utf-8", "surrogateescape")[-512:]
    except ValueError:  # ustar has no way to say so
        return
    theirs = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    ours = read_header(block)
    assert ours is not None
    assert ours.name.rstrip(b"/") == theirs.name.encode("utf-8", "surrogateescape").rstrip(b"/")
    assert (ours.size, ours.type) == (theirs.size, theirs.type)


@given(st.binary(min_size=512, max_size=512))
def test_noise_is_no_header(block: bytes) -> None:
    assert read_header(block) is None


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_flipped_byte_spoils_a_header_or_changes_nothing_we_read(at: int, flip: int) -> None:
    good = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT)[:512])
    good[at] ^= flip
    header = read_header(bytes(good))
    if header is not None:  # only within the checksum field, which digits write in many ways
        assert 148 <= at < 156
        assert (header.name, header.size) == (b"a.jpg", 0)


@pytest.mark.parametrize("block", [600, 4096, 1 << 20])
def test_ranges_skip_what_is_not_needed(block: int) -> None:
    data = tar_bytes([(f"{i}.jpg", picture(i, size=(400, 400))) for i in range(20)])
    read = 0

    def read_range(start: int, stop: int) -> bytes:
        nonlocal read
        read += stop - start
        return data[start:stop]

    found = list(list_tar(RangeCursor(read_range, len(data), block), lambda _: False))
    members = [m for m in found if isinstance(m, Member)]
    assert len(members) == len(found)
    assert [m.name for m in members] == [f"{i}.jpg".encode() for i in range(20)]
    assert all(data[m.offset : m.offset + 3] == b"\xff\xd8\xff" for m in members)
    if block == 600:
        assert read < len(data) / 3
