"""Kinds of containers: what the registry promises, and the kinds that came last."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import textspot_ray
from tests.support.archives import IMAGE, config, listed, names, picture, read_all
from textspot_ray.config import ImageConfig
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.kinds import KINDS, access_of, is_ordered, kind_of_head, kind_of_name

BIG = [picture(i, size=(300, 200)) for i in range(12)]


def test_no_two_kinds_share_a_suffix_or_a_container_name() -> None:
    suffixes = [suffix for kind in KINDS for suffix in kind.suffixes]
    containers = [name for kind in KINDS for name in kind.access]
    assert len(set(suffixes)) == len(suffixes) and len(set(containers)) == len(containers)
    for kind in KINDS:
        for suffix in kind.suffixes:
            assert kind_of_name(f"x/y.{suffix.upper()}") is kind
            assert kind_of_name(suffix) is None  # a name that is but the suffix
    assert kind_of_name("a.jpg.gz") is None and kind_of_head(b"no archive") is None


def test_names_that_plans_hold_stay_readable() -> None:
    for name in ("file", "tar", "tar_stream", "zip", "parquet", "seven_zip", "arrow"):
        assert access_of(name) is not None
    assert [name for k in KINDS for name in k.access if is_ordered(name)] == [
        "seven_zip", "tar_stream"
    ]  # fmt: skip
    error = read_all([Item("x", "file:///x", "container of the future")])[0].error
    assert error is not None and error.kind is ErrorKind.UNSUPPORTED
    assert "newer textspot-ray" in error.message


def test_no_module_outside_the_kinds_knows_one_by_name() -> None:
    root = Path(textspot_ray.__file__).parent
    known = {name for kind in KINDS for name in kind.access} - {"file", "zip", "parquet", "arrow"}
    classes = {type(kind).__name__ for kind in KINDS}
    looked_at = 0
    for path in root.rglob("*.py"):
        if "kinds" in path.parts:
            continue
        looked_at += 1
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in known - {"tar"}, path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "textspot_ray.sources.kinds."
            ):
                assert node.module == "textspot_ray.sources.kinds.base", path
                assert not classes & {alias.name for alias in node.names}
    assert looked_at > 100


def contents(items: list[Item], **options: Any) -> list[bytes | ErrorKind | None]:
    return [e.error.kind if e.error else e.data for e in read_all(items, **options)]


# ---------------------------------------------------------------- 7z


def seven_zip(path: Path, members: list[tuple[str, bytes]], filters: Any = None) -> Path:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(path, "w", filters=filters) as archive:
        for name, data in members:
            archive.writestr(data, name)
    return path


MEMBERS = [(f"d/{i:02d}.jpg", data) for i, data in enumerate(BIG)]


@pytest.mark.parametrize("method", ["LZMA2", "LZMA", "COPY", "PPMD", "BZIP2", "DEFLATE", "X86"])
def test_seven_zip_by_method(tmp_path: Path, method: str) -> None:
    py7zr = pytest.importorskip("py7zr")
    filters = [{"id": getattr(py7zr, f"FILTER_{method}")}]
    if method == "PPMD":
        filters[0].update(order=6, mem=24)
    if method == "X86":
        filters.append({"id": py7zr.FILTER_LZMA2, "preset": 6})
    if method.startswith("LZMA"):
        filters[0].update(preset=6)
    extra = [("d/words.txt", b"x"), ("d/scan", BIG[3]), ("d/notes", b"n" * 999), ("e.jpg", b"")]
    path = seven_zip(tmp_path / "a.7z", MEMBERS + extra + [("__MACOSX/._a.jpg", b"x")], filters)
    items, reasons = listed(path)
    assert names(items) == [f"{i:02d}.jpg" for i in range(12)] + ["scan", "a.7z#e.jpg"]
    assert reasons == {"not an image": 2, "macOS metadata": 1}
    expected = [*BIG, BIG[3], ErrorKind.EMPTY_FILE]
    assert contents(items) == expected
    order = list(range(len(items)))
    random.Random(3).shuffle(order)
    assert contents([items[i] for i in order]) == [expected[i] for i in order]


def test_seven_zip_is_known_by_content_and_takes_limits(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    path = seven_zip(tmp_path / "what", [("a.jpg", BIG[0]), ("b.bmp", bytes(2_000_000))])
    items, _ = listed(path)
    assert contents(items, image=ImageConfig(max_bytes=1_000_000)) == [
        BIG[0], ErrorKind.TOO_LARGE
    ]  # fmt: skip
    greedy = [{"id": py7zr.FILTER_LZMA2, "dict_size": 192 << 20}]
    items, _ = listed(seven_zip(tmp_path / "b.7z", MEMBERS[:2], greedy))
    got = read_all(items)
    assert [e.error.kind for e in got if e.error] == [ErrorKind.TOO_LARGE] * 2
    assert got[0].error is not None and "smaller dictionary" in got[0].error.message


def test_seven_zip_never_writes_and_tells_encryption(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(tmp_path / "e.7z", "w", password="secret") as archive:
        archive.writestr(BIG[0], "a.jpg")
    items, _ = listed(tmp_path / "e.7z")
    assert contents(items) == [ErrorKind.UNSUPPORTED]
    before = sorted(tmp_path.rglob("*"))
    data = seven_zip(tmp_path / "t.7z", [("aa/aa/x.jpg", BIG[1])]).read_bytes()
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "t.7z"])
    assert len(data) > 100


def test_damaged_seven_zips_are_rows(tmp_path: Path) -> None:
    data = seven_zip(tmp_path / "a.7z", MEMBERS).read_bytes()
    for broken in (data[:20], data[:200], data[:-10], data[:6] + bytes(26), b""):
        (tmp_path / "b.7z").write_bytes(broken)
        items, _ = listed(tmp_path / "b.7z")
        assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]
    middle = bytearray(data)
    middle[300:340] = bytes(40)
    (tmp_path / "c.7z").write_bytes(middle)
    got = contents(listed(tmp_path / "c.7z")[0])
    assert len(got) == 12 and ErrorKind.BROKEN_ARCHIVE in got
    assert all(isinstance(g, ErrorKind) or g in BIG for g in got)


def test_without_py7zr_the_row_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    path = seven_zip(tmp_path / "a.7z", MEMBERS[:1])
    (tmp_path / "b.jpg").write_bytes(BIG[2])
    monkeypatch.setitem(sys.modules, "py7zr", None)
    items, _ = listed(tmp_path)
    assert path.exists() and names(items) == ["a.7z", "b.jpg"]
    error = items[0].error
    assert error is not None and error.kind is ErrorKind.UNSUPPORTED
    assert "textspot-ray[7z]" in error.message


# ---------------------------------------------------------------- Arrow


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_files_of_hugging_face(tmp_path: Path, form: str) -> None:
    rows = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(BIG)]
    table = pa.table({"image": rows, "label": list(range(12))})
    folder = tmp_path / "train"
    folder.mkdir()
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    (folder / "state.json").write_text("{}")
    items, reasons = listed(tmp_path)
    assert reasons == {"not an image": 1}
    assert contents(items) == BIG and items[3].extra == '{"label": 3}'
    assert contents([items[i] for i in (7, 2, 11, 0)]) == [BIG[i] for i in (7, 2, 11, 0)]
    with make(tmp_path / "words.arrow", pa.schema([("t", pa.string())])) as writer:
        writer.write_table(pa.table({"t": ["x"]}))
    assert listed(tmp_path)[1] == {"not an image": 1, "Arrow without image bytes": 1}
    data = (folder / "data-00000-of-00001.arrow").read_bytes()
    hole = data.rindex(b"\xff\xff\xff\xff", 0, len(data) - 8)  # the last message's mark
    zeroed = data[:hole] + bytes(8) + data[hole + 8 :]
    cuts = [data[: len(data) // 2], data[:5], b""]
    for broken in cuts if form == "file" else [*cuts, data[:hole], zeroed]:
        (tmp_path / "b.arrow").write_bytes(broken)
        items, _ = listed(tmp_path / "b.arrow")
        assert items[-1].error is not None
        assert items[-1].error.kind is ErrorKind.BROKEN_ARCHIVE


# ---------------------------------------------------------------- columns of tables


def test_images_by_any_binary_type(tmp_path: Path) -> None:
    plain = pa.array(BIG, pa.binary())
    for name, array in {
        "large": plain.cast(pa.large_binary()),
        "dictionary": plain.dictionary_encode(),
        "fixed": pa.array([b"\xff\xd8\xff" + bytes(97)] * 12, pa.binary(100)),
        "view": plain.cast(pa.binary_view()) if hasattr(pa, "binary_view") else plain,
    }.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"photo": array, "n": list(range(12))}), path, row_group_size=5)
        expected = [b"\xff\xd8\xff" + bytes(97)] * 12 if name == "fixed" else BIG
        assert contents(listed(path)[0]) == expected, name


def test_the_column_is_found_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    embeddings = [bytes([i]) * 64 for i in range(12)]
    table = {"image": embeddings, "photo": BIG, "caption": ["x"] * 12}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table), path)
    items, _ = listed(path)
    assert contents(items) == BIG and items[0].extra == '{"caption": "x"}'
    chosen = config(path, image_column="none,image")
    items, _ = listed(path, image_column="none,image")
    assert read_all(items, chosen)[1].data == embeddings[1]


def test_nested_listed_and_base64_images(tmp_path: Path) -> None:
    import base64

    nested = [{"page": {"scan": {"bytes": d, "path": None}, "n": 1}} for d in BIG]
    pq.write_table(pa.table({"doc": nested}), tmp_path / "nested.parquet")
    assert contents(listed(tmp_path / "nested.parquet")[0]) == BIG
    for name, wrap in {
        "structs": lambda d: {"bytes": d, "path": "x.png"},
        "pathless": lambda d: {"bytes": d},
        "binary": lambda d: d,
    }.items():
        lists = [[wrap(BIG[0])], [], [wrap(d) for d in BIG[1:4]], None]
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"images": lists, "q": list("abcd")}), path)
        items, reasons = listed(path)
        ids = [f"{name}.parquet#{t}" for t in ("0", "2", "2#image=2", "2#image=3")]
        assert names(items) == ids and reasons == {"row without an image": 2}
        assert contents(items) == BIG[:4]
        assert contents(items[::-1]) == BIG[3::-1]
        ids = [i.image_id for i in listed(path, id_column="q")[0]]
        assert ids == ["a", "c", "c#image=2", "c#image=3"]
    texts = [base64.b64encode(d).decode() for d in BIG]
    texts[1] = f"data:image/jpeg;base64,{texts[1]}"
    texts[2] = "no base64!"
    pq.write_table(pa.table({"jpg": texts, "caption": ["a"] * 12}), tmp_path / "b.parquet")
    items, _ = listed(tmp_path / "b.parquet")
    assert contents(items) == [*BIG[:2], ErrorKind.CORRUPT, *BIG[3:]]
    assert items[0].extra == '{"caption": "a"}'


def test_rows_with_a_path_only_are_read_beside_the_table_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    (folder / "img").mkdir(parents=True)
    (folder / "img/a.jpg").write_bytes(BIG[1])
    (tmp_path / "secret.jpg").write_bytes(BIG[2])
    paths = ["img/a.jpg", "img/gone.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"), None]
    rows = [{"bytes": BIG[0], "path": "x.jpg"}] + [{"bytes": None, "path": p} for p in paths]
    pq.write_table(pa.table({"image": rows}), folder / "a.parquet")
    got = read_all(listed(folder / "a.parquet")[0])
    assert [e.data for e in got] == [BIG[0], BIG[1], None, None, None, None]
    messages = [e.error.message for e in got if e.error]
    assert "no file 'img/gone.jpg' beside" in messages[0]
    assert "leads out" in messages[1] and "leads out" in messages[2] and "null" in messages[3]


def test_several_columns_of_images_in_a_folder_cost_a_row_not_the_run(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": BIG, "right": BIG}), tmp_path / "a.parquet")
    (tmp_path / "b.jpg").write_bytes(BIG[0])
    items, _ = listed(tmp_path)
    assert names(items) == ["a.parquet", "b.jpg"]
    assert items[0].error is not None and items[0].error.kind is ErrorKind.UNSUPPORTED
    assert "left, right" in items[0].error.message
    items, _ = listed(tmp_path, image_column="photo,right")
    assert len(items) == 13 and IMAGE.max_bytes > 0


@pytest.mark.parametrize("is_random", [False, True])
def test_arrow_offsets_that_lead_astray_are_an_error_row(tmp_path: Path, is_random: bool) -> None:
    images = [picture(n) for n in range(4)]
    good = pa.array(images, pa.binary())
    offsets = bytearray(good.buffers()[1].to_pybytes())
    offsets[8:12] = (2**31 - 9).to_bytes(4, "little")
    bad = pa.Array.from_buffers(
        pa.binary(), 4, [None, pa.py_buffer(bytes(offsets)), good.buffers()[2]]
    )
    path = tmp_path / "a.arrow"
    schema = pa.schema([("image", pa.binary())])
    make = pa.ipc.new_file if is_random else pa.ipc.new_stream
    with make(path, schema) as writer:
        for column in (good, bad):
            writer.write_batch(pa.record_batch([column], schema=schema))
    items, _ = listed(path)
    got = contents(items)
    assert got[:4] == images and ErrorKind.BROKEN_ARCHIVE in got[4:]
    assert all(isinstance(one, ErrorKind) for one in got[4:])
