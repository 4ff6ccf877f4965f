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


def test_one_id_for_two_images_is_refused_and_both_are_named(folder: Path) -> None:
    path = write(folder / "l.csv", "id,path\n7,in/a.jpg\n7,in/a.jpg\n8,in/c.png\n")
    items, reasons = listed(path, id_column="id")
    assert [i.image_id for i in items] == ["7", "8"]
    assert reasons == {"listed twice": 1}
    write(path, "id,path\n7,in/a.jpg\n8,in/b b.jpg\n7,in/c.png\n")
    with pytest.raises(SourceError, match=r"share the id '7': .*/in/a\.jpg and .*/in/c\.png"):
        listed(path, id_column="id")


def test_ids_of_the_users_never_meet_ours(folder: Path) -> None:
    write(folder / "in/t.tar", tar_bytes([("x.jpg", picture(4)), ("x.jpg", picture(5))]))
    path = write(folder / "l.csv", "id,path\nt,in/t.tar\nt#x.jpg~2,in/a.jpg\n")
    with pytest.raises(SourceError, match=r"share the id 't#x\.jpg~2'"):
        listed(path, id_column="id")
    items, _ = listed(write(path, "id,path\nt#page=1,in/a.jpg\nt,in/c.png\n"), id_column="id")
    assert [i.error is None for i in items] == [False, True]
    assert items[0].error is not None and "#page" in items[0].error.message


def test_base_cannot_make_two_images_one(folder: Path) -> None:
    path = write(folder / "l.csv", f"id,path\nin/c.png,in/a.jpg\n,{folder}/in/c.png\n")
    items, _ = listed(path, id_column="id", base=str(folder))
    assert [i.image_id for i in items] == ["in/c.png", "l.csv#~row=3"]
    with pytest.raises(SourceError, match=r"share the id 'in/c\.png'"):
        listed(path, folder / "in", id_column="id", base=str(folder))


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
    assert len(listed(write(folder / "l.csv", "one,two\nx,in/a.jpg\n"))[0]) == 1  # by its look
    with pytest.raises(SourceError, match=r"source\.uri_column"):
        listed(write(folder / "l.csv", "one,two\nx,y\n"))
    with pytest.raises(SourceError, match="no column 'zzz'"):
        listed(folder / "l.csv", uri_column="zzz")


@pytest.mark.parametrize(
    ("name", "text", "row", "says"),
    [
        ("l.csv", "path,n\nin/a.jpg,1\nin/a.jpg\n{},2\n", 3, "1 fields where the heading has 2"),
        ("l.csv", "url,n\nin/a.jpg,1\n,7\n{},2\n", 3, "column 'url' is empty"),
        ("l.csv", "url,n\n,7\nin/a.jpg,1\n{},2\n", 2, "column 'url' is empty"),
        ("l.jsonl", '{"path": "in/a.jpg"}\nnot json\n{"path": "%s"}\n', 2, "not JSON"),
        ("l.jsonl", '[1]\n{"path": "in/a.jpg"}\n{"path": "%s"}\n', 1, "a JSON object"),
        ("l.jsonl", '{"path": "in/a.jpg"}\n{"path": ""}\n{"path": "%s"}\n', 2, "is empty"),
        ("l.txt", "in/a.jpg\ns4://bucket/a.jpg\n{}\n", 2, "unknown scheme s4"),
    ],
)
def test_a_bad_row_is_an_error_row_and_the_rest_is_read(
    folder: Path, name: str, text: str, row: int, says: str
) -> None:
    path = write(folder / name, text.replace("{}", "in/c.png").replace("%s", "in/c.png"))
    items, _ = listed(path)
    bad = [i for i in items if i.error is not None]
    assert [i.image_id.rpartition("/")[2] for i in bad] == [f"{name}#~row={row}"]
    assert bad[0].error is not None and says in bad[0].error.message
    assert f"row {row} of the list" in bad[0].error.message
    assert names(i for i in items if i.error is None) == ["a.jpg", "c.png"]
    assert [e.error == bad[0].error for e in read_all(bad)] == [True]


def test_what_is_no_list_at_all_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="binary data") as caught:
        listed(write(folder / "l.txt", b"a\0b\n"))
    assert "\n" not in str(caught.value)


def test_id_column_needs_columns_and_values(folder: Path) -> None:
    with pytest.raises(SourceError, match="needs a list with columns"):
        listed(write(folder / "l.txt", "in/a.jpg\n"), id_column="id")
    items, _ = listed(write(folder / "l.csv", "id,path\n,in/a.jpg\n"), id_column="id")
    assert items[0].error is not None and "no value in --id-column" in items[0].error.message


def test_broken_parquet_list_given_by_name_is_a_row_not_a_silence(folder: Path) -> None:
    items, _ = listed(write(folder / "l.parquet", b"PAR1 nothing"))
    assert [i.error.kind for i in items if i.error] == [ErrorKind.BROKEN_ARCHIVE]


def test_empty_lists_have_no_items(folder: Path) -> None:
    for name in ("l.txt", "l.csv", "l.jsonl"):
        assert listed(write(folder / name, "")) == ([], {})


# ---------------------------------------------------------------- lists as people have them


def test_lists_without_a_heading(folder: Path) -> None:
    path = write(folder / "l.csv", "in/a.jpg,cat\nin/c.png,dog\n")
    items, _ = listed(path)
    assert names(items) == ["a.jpg", "c.png"]
    assert json.loads(items[0].extra or "") == {"column_2": "cat"}
    assert len(listed(path, header="yes", uri_column="in/a.jpg")[0]) == 1
    assert len(listed(write(path, "x,in/a.jpg\n"), header="no", uri_column="column_2")[0]) == 1


def test_tsv_captions_that_begin_with_a_quote(folder: Path) -> None:
    rows = ["url\tcaption", 'in/a.jpg\t"hello', "in/b b.jpg\tx", 'in/c.png\t5" screen"']
    items, _ = listed(write(folder / "l.tsv", "\n".join(rows) + "\n"))
    assert names(items) == ["a.jpg", "b%20b.jpg", "c.png"]
    assert [json.loads(i.extra or "")["caption"] for i in items] == ['"hello', "x", '5" screen"']
    rows = ["url\tcaption", '"in/a.jpg"\t"say ""x"""', '"in/c.png"\t"two\nlines"']
    items, _ = listed(write(folder / "l.tsv", "\n".join(rows) + "\n"))
    assert [json.loads(i.extra or "")["caption"] for i in items] == ['say "x"', "two\nlines"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "jsonl"])
def test_lists_in_other_encodings(folder: Path, encoding: str, suffix: str) -> None:
    text = {
        "txt": "in/a.jpg\r\nin/b b.jpg\r\n",
        "csv": "path,ü\r\nin/a.jpg,é\r\nin/b b.jpg,x\r\n",
        "tsv": 'path\tn\r\nin/a.jpg\t"é\r\nin/b b.jpg\tx\r\n',
        "jsonl": '{"path": "in/a.jpg", "n": "é"}\r\n{"path": "in/b b.jpg"}\r\n',
    }[suffix]
    items, reasons = listed(write(folder / f"l.{suffix}", text.encode(encoding)))
    assert names(items) == ["a.jpg", "b%20b.jpg"] and not reasons
    assert [e.error for e in read_all(items)] == [None, None]


def test_labels_of_paddle_ocr_and_quoted_or_windows_paths(folder: Path) -> None:
    label = '[{"transcription": "HELLO"}]'
    text = f'in/a.jpg\t{label}\n"in/b b.jpg"\nin\\c.png\n'
    items, _ = listed(write(folder / "l.txt", text))
    assert names(items) == ["a.jpg", "b%20b.jpg", "c.png"]
    assert json.loads(items[0].extra or "") == {"label": [{"transcription": "HELLO"}]}
    assert [e.data for e in read_all(items)] == [picture(i) for i in range(3)]


def test_rows_with_several_images(folder: Path) -> None:
    row = {"id": "q1", "images": ["in/a.jpg", "in/c.png"], "conversations": [{"from": "x.jpg"}]}
    path = write(folder / "l.jsonl", json.dumps(row) + "\n")
    items, _ = listed(path)
    assert names(items) == ["a.jpg", "c.png"]
    assert set(json.loads(items[1].extra or "")) == {"id", "conversations"}
    items, _ = listed(path, id_column="id")
    assert [i.image_id for i in items] == ["q1", "q1#image=2"]


def test_hugging_face_paths_in_a_list(folder: Path) -> None:
    path = write(folder / "l.jsonl", '{"image": {"bytes": null, "path": "in/a.jpg"}, "t": "x"}\n')
    assert names(listed(path)[0]) == ["a.jpg"]
    table = pa.table({"image": [{"bytes": None, "path": "in/c.png"}]})
    pq.write_table(table.cast(pa.schema([("image", pa.struct([("bytes", pa.binary()),
                   ("path", pa.string())]))])), folder / "l.parquet")  # fmt: skip
    assert [e.data for e in read_all(listed(folder / "l.parquet")[0])] == [picture(2)]


def test_captions_of_megabytes_are_cut_not_kept(folder: Path) -> None:
    rows = [{"path": "in/a.jpg", "caption": "x" * 2_000_000, "n": 1}]
    items, _ = listed(write(folder / "l.jsonl", json.dumps(rows[0]) + "\n"))
    extra = json.loads(items[0].extra or "")
    assert extra["n"] == 1 and extra["caption"] == "x" * 65_536 + "…"


@pytest.mark.parametrize("depth", [300, 600, 900, 5000])
def test_values_nested_without_end_cost_their_row_at_most(folder: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    lines = [f'{{"uri": "in/a.jpg", "more": {deep}}}', f'{{"uri": {deep}}}', '{"uri": "in/c.png"}']
    items, _ = listed(write(folder / "l.jsonl", "\n".join(lines)))
    assert len(items) == 3 and items[1].error is not None and items[2].error is None
    items, _ = listed(write(folder / "l.txt", f"in/a.jpg\t{deep}\nin/c.png\n"))
    assert names(items) == ["a.jpg", "c.png"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec's own
def test_a_driver_that_cannot_be_made_costs_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FTP's wants a host among its options, and connects as it is made."""
    (tmp_path / "a.jpg").write_bytes(picture(1))
    path = tmp_path / "list.txt"
    path.write_text("ftp://me:hunter2@127.0.0.1:9/z.jpg\na.jpg\n")
    for options, kind, said in [
        ({}, ErrorKind.UNSUPPORTED, "storage_options.ftp: missing 1 required"),
        ({"ftp": {"host": "127.0.0.1", "port": 9}}, ErrorKind.STORAGE, "cannot open ftp://"),
    ]:
        items, _ = listed(path, storage_options=options)
        assert [item.error is None for item in items] == [False, True]
        error = items[0].error
        assert error is not None and error.kind is kind and said in error.message
        assert "hunter2" not in error.message
