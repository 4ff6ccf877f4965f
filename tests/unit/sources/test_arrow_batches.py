"""Arrow files whose batches are too large to be read at once, and what bounds the memory."""

from __future__ import annotations

import base64
import io
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.archives import config, listed, picture, read_all
from textspot_ray.config import ImageConfig
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.kinds import arrow
from textspot_ray.sources.kinds.tables import ImageColumn
from textspot_ray.sources.listing import list_items

IMAGES = [picture(i, size=(300, 200)) for i in range(40)]


def write(path: Path, table: pa.Table, form: str, codec: str | None, rows: int = 1000) -> None:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is one that is too large to be read at once."""
    monkeypatch.setattr(arrow, "_WHOLE_BYTES", -1)
    monkeypatch.setattr(arrow, "_ROWS_BYTES", 4096)


class Watched(io.BytesIO):
    """A file that knows the largest read of it."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.largest = max(self.largest, len(data))
        return data


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_rows_of_a_large_batch_are_read_without_the_rest(form: str, codec: str | None) -> None:
    """Two batches of 20 MB, and no read of more than a packed piece or some rows."""
    rows = [{"bytes": b"\x89PNG\r\n\x1a\n" + bytes([i]) * 500_000, "path": "x"} for i in range(80)]
    table = pa.table({"image": rows, "n": list(range(80))})
    file = Watched()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=40)
    file.seek(0)
    opened = arrow.ArrowKind().open_table(file, 1 << 20)
    file.largest, most = 0, 0
    before = pa.total_allocated_bytes()
    for want, got in itertools.zip_longest(
        rows[3:], opened.scalars(ImageColumn(("image",), ""), 3)
    ):
        assert got.as_py() == want
        most = max(most, pa.total_allocated_bytes() - before)
    assert [row["n"] for row in opened.records(["n"])] == list(range(80))
    assert file.largest < 8 << 20 and most < 8 << 20


def test_every_type_comes_out_as_arrow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts(monkeypatch)
    values: dict[str, tuple[Any, list[Any]]] = {
        "bits": (pa.bool_(), [True, None, False, True, False]),
        "small": (pa.int8(), [1, None, 3, -4, 5]),
        "fixed": (pa.binary(3), [b"abc", None, b"def", b"ghi", b"jkl"]),
        "text": (pa.large_string(), ["é" * 3000, "", None, "x", "y"]),
        "none": (pa.null(), [None] * 5),
        "listed": (pa.list_(pa.binary()), [[b"a", None], [], None, [b"bc"], [b"d"] * 9]),
        "pairs": (pa.list_(pa.int32(), 2), [[1, 2], None, [3, 4], [5, None], [7, 8]]),
        "deep": (
            pa.struct([("a", pa.list_(pa.struct([("b", pa.bool_())]))), ("c", pa.float64())]),
            [{"a": [{"b": True}] * 3, "c": 1.5}, None, {"a": None, "c": None}, {"a": [], "c": 2.0},
             {"a": [{"b": None}], "c": 3.0}],
        ),
        "view": (pa.string_view(), ["a", None, "b" * 40, "", "c"]),  # read whole, as what follows
        "after": (pa.int64(), [1, 2, 3, 4, None]),
    }  # fmt: skip
    arrays = {name: pa.array(data * 300, kind) for name, (kind, data) in values.items()}
    whole = pa.table(arrays)
    for names in (list(values), list(values)[:-2]):
        table = whole.select(names).slice(3)
        file = io.BytesIO()
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
        opened = arrow.ArrowKind().open_table(file, 200_000_000)
        assert list(opened.records(names)) == table.to_pylist()
        for name in names:
            got = [v.as_py() for v in opened.scalars(ImageColumn((name,), ""), 1301)]
            assert got == table.column(name).to_pylist()[1301:], name
    lengths = opened.scalars(ImageColumn(("listed",), "", True), bare=True)
    assert [None if v.values is None else len(v.values) for v in lengths][:4] == [1, 9, 2, 0]


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_images_come_out_of_batches_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, codec: str | None
) -> None:
    in_parts(monkeypatch)
    lists = [[IMAGES[0]], [], None, IMAGES[1:40]]
    n = pa.array(["x"] * 40).dictionary_encode()
    texts = [base64.b64encode(data).decode() for data in IMAGES]
    for name, table, want in (
        ("plain", pa.table({"image": IMAGES, "n": ["x"] * 40}), IMAGES),
        ("lists", pa.table({"images": lists, "n": ["x"] * 4}), IMAGES),
        ("texts", pa.table({"jpg": texts}), IMAGES),
        (
            "kept",
            pa.table({"image": IMAGES, "n": n}),
            IMAGES,
        ),
    ):
        path = tmp_path / f"{name}.arrow"
        write(path, table, form, codec, rows=17)
        items, _ = listed(path)
        got = [encoded.data for encoded in read_all(items)]
        assert got == want, name
        assert [e.data for e in read_all([items[33], items[2]])] == [want[33], want[2]]
        if name != "texts":
            assert items[0].extra == '{"n": "x"}'


def test_a_row_that_is_too_large_costs_itself(tmp_path: Path) -> None:
    sizes = [10, 20_000_000, 20, 30_000_000, 30]
    rows = [IMAGES[0] + bytes(size) for size in sizes]
    write(tmp_path / "a.arrow", pa.table({"image": rows}), "file", None)
    image = ImageConfig(max_bytes=15_000_000)
    items = [i for i in list_items(config(tmp_path / "a.arrow"), image) if isinstance(i, Item)]
    got = read_all(items, image=image)
    assert [e.data or (e.error and e.error.kind) for e in got] == [
        rows[0], ErrorKind.TOO_LARGE, rows[2], ErrorKind.TOO_LARGE, rows[4]
    ]  # fmt: skip
    assert got[3].error and "image.max_bytes = 15000000" in got[3].error.message


@pytest.mark.parametrize("form", ["stream", "file"])
def test_what_can_only_be_read_whole_is_refused_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Before a byte of the body is read: the fix is in the message."""
    column = pa.array([IMAGES[0] + bytes(900_000)] * 30, pa.binary()).cast(pa.binary_view())
    table = pa.table({"image": column})
    path = tmp_path / "a.arrow"
    write(path, table, form, "zstd")
    assert path.stat().st_size < 1_000_000
    with path.open("rb") as file:
        opened = arrow.ArrowKind().open_table(file, 200_000_000)
        assert sum(1 for _ in opened.scalars(ImageColumn(("image",), ""))) == 30
    image = ImageConfig(max_bytes=15_000_000)
    monkeypatch.setattr(pa.ipc, "read_record_batch", lambda *_: pytest.fail("it was read"))
    items = [i for i in list_items(config(path), image) if isinstance(i, Item)]
    errors = [encoded.error for encoded in read_all(items, image=image)]
    assert len(errors) == 30
    for error in errors:
        assert error is not None and error.kind is ErrorKind.TOO_LARGE
        assert "write smaller record batches" in error.message and "15000000" in error.message


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_more_rows_than_the_data_can_have_are_no_listing_without_end(
    tmp_path: Path, codec: str | None
) -> None:
    path = tmp_path / "a.arrow"
    write(path, pa.table({"image": IMAGES * 25}), "file", codec)
    good, rows = path.read_bytes(), (1000).to_bytes(8, "little")
    assert good.count(rows) >= 2  # of the batch, and of its node
    path.write_bytes(good.replace(rows, (1 << 50).to_bytes(8, "little")))
    items, _ = listed(path)
    (error,) = [item.error for item in items]
    assert error is not None and error.kind is ErrorKind.BROKEN_ARCHIVE


@pytest.mark.parametrize("codec", [None, "lz4"])
def test_any_damaged_byte_is_told_or_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str | None
) -> None:
    """A byte turned anywhere in metadata or offsets: each image comes out, or an error does."""
    in_parts(monkeypatch)
    for form in ("stream", "file"):
        path = tmp_path / "a.arrow"
        write(path, pa.table({"image": IMAGES[:3]}), form, codec)
        good = path.read_bytes()
        for at in range(0, min(len(good), 900), 3):
            path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
            items, reasons = listed(path)
            got = read_all(items)
            assert got or reasons
            assert all(e.data is not None or e.error is not None for e in got)
