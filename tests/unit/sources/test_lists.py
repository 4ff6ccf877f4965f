from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import listed, names, picture, read_all, tar_bytes
from textspot_ray.errors import SourceError, UsageError
from textspot_ray.records import ErrorKind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i, name in enumerate(("a.jpg", "b b.jpg", "c.png")):
        (tmp_path / "in" / name).write_bytes(picture(i))
    return tmp_path


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_text_list_with_all_kinds_of_entries(folder: Path) -> None:
    entries = ["in/a.jpg", "", f"{folder}/in/b b.jpg", f"file://{folder}/in/c.png", "in/a.jpg"]
    entries += ["in/gone.jpg", "in/notes.txt", "https://example.org/x.jpg?w=1"]
    items, reasons = listed(write(folder / "list.txt", "\r\n".join(entries)))
    assert names(items) == ["a.jpg", "b%20b.jpg", "c.png", "gone.jpg", "x.jpg?w=1"]
    assert reasons == {"listed twice": 1, "not an image": 1}
    assert items[-1].content_tag is None
    got = read_all(items[:4])
    assert [e.data for e in got[:3]] == [picture(i) for i in range(3)]
    assert got[3].error is not None and got[3].error.kind is ErrorKind.MISSING


def test_http_without_content_tags_is_warned_of_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed(write(folder / "l.txt", "https://h/a.jpg\nhttps://h/b.jpg\n"))
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_list_beside_other_sources_gives_one_item_each(folder: Path) -> None:
    path = write(folder / "list.txt", "in/a.jpg\nin/c.png\n")
    items, reasons = listed(folder / "in", path)
    assert len(items) == 3 and reasons == {"listed twice": 2}


def test_non_utf8_entries(folder: Path) -> None:
    import os

    raw = b"in/by\xffte.jpg"
    Path(os.fsdecode(os.fsencode(folder) + b"/" + raw)).write_bytes(picture(7))
    items, _ = listed(write(folder / "list.txt", raw + b"\n"))
    assert [e.data for e in read_all(items)] == [picture(7)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_pass_through(folder: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "one", "Path": "in/a.jpg", "city": "Zürich, ZH", "n": 1},
        {"id": "two", "Path": "in/b b.jpg", "city": 'say "x"\nbye', "n": 2},
    ]
    path = folder / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        write(path, "".join(json.dumps(r) + "\n" for r in rows) + "\n")
    else:
        import csv
        import io

        out = io.StringIO()
        table = csv.DictWriter(out, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
        table.writeheader()
        table.writerows(rows)
        write(path, "\ufeff" + out.getvalue())
    items, _ = listed(path)
    assert names(items) == ["a.jpg", "b%20b.jpg"]
    extra = json.loads(items[1].extra or "")
    assert extra == {"id": "two", "city": 'say "x"\nbye', "n": 2 if suffix[0] in "jp" else "2"}
    items, _ = listed(path, id_column="id")
    assert [i.image_id for i in items] == ["one", "two"]
    assert "id" not in json.loads(items[0].extra or "")
    assert [e.data for e in read_all(items)] == [picture(0), picture(1)]


def test_one_id_for_two_images_becomes_two(folder: Path) -> None:
    path = write(folder / "l.csv", "id,path\n7,in/a.jpg\n7,in/c.png\n7,in/a.jpg\n")
    items, reasons = listed(path, id_column="id")
    assert [i.image_id for i in items] == ["7", "7~2"]
    assert reasons == {"listed twice": 1}


def test_archives_in_lists_pass_columns_to_their_members(folder: Path) -> None:
    write(folder / "in/t.tar", tar_bytes([("x.jpg", picture(4)), ("y.jpg", picture(5))]))
    items, _ = listed(write(folder / "l.jsonl", '{"uri": "in/t.tar", "set": 3}\n'))
    assert names(items) == ["t.tar#x.jpg", "t.tar#y.jpg"]
    assert {i.extra for i in items} == {'{"set": 3}'}


def test_csv_of_one_column_without_heading(folder: Path) -> None:
    items, _ = listed(write(folder / "l.csv", "in/a.jpg\nin/c.png\n"))
    assert names(items) == ["a.jpg", "c.png"]


def test_column_is_guessed_or_asked_for(folder: Path) -> None:
    assert len(listed(write(folder / "l.csv", "n,thing\n1,in/a.jpg\n"), uri_column="thing")[0]) == 1
    with pytest.raises(SourceError, match=r"source\.uri_column"):
        listed(write(folder / "l.csv", "one,two\nx,in/a.jpg\n"))
    with pytest.raises(SourceError, match="no column 'zzz'"):
        listed(folder / "l.csv", uri_column="zzz")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("l.csv", "path,n\nin/a.jpg\n", "line 2: 1 fields where the heading has 2"),
        ("l.csv", "path\n,\n", "line 2: 2 fields"),
        ("l.jsonl", '{"path": "a.jpg"}\nnot json\n', "line 2 is not JSON"),
        ("l.jsonl", "[1]\n", "line 1: a JSON object"),
        ("l.jsonl", '{"path": ""}\n', "row 1: column 'path' is empty"),
        ("l.txt", b"a\0b\n", "binary data"),
        ("l.txt", "s4://bucket/a.jpg\n", "unknown scheme s4"),
    ],
)
def test_broken_lists_name_the_line(folder: Path, name: str, text: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        listed(write(folder / name, text))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_id_column_needs_columns_and_values(folder: Path) -> None:
    with pytest.raises(SourceError, match="needs a list with columns"):
        listed(write(folder / "l.txt", "in/a.jpg\n"), id_column="id")
    with pytest.raises(SourceError, match="row 1: no value"):
        listed(write(folder / "l.csv", "id,path\n,in/a.jpg\n"), id_column="id")


def test_broken_parquet_list_given_by_name_is_a_row_not_a_silence(folder: Path) -> None:
    items, _ = listed(write(folder / "l.parquet", b"PAR1 nothing"))
    assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]


def test_empty_lists_have_no_items(folder: Path) -> None:
    for name in ("l.txt", "l.csv", "l.jsonl"):
        assert listed(write(folder / name, "")) == ([], {})
