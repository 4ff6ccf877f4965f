"""What an export says of places is what the table has: to 0.01 px, or in whole pixels."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import write_run
from textspot_ray.export.export import ExportSettings, export_table
from textspot_ray.export.formats import FORMATS, WITH_PIXELS, writer_class
from textspot_ray.export.layout import PageLayout
from textspot_ray.export.names import FileNames, image_names
from textspot_ray.query.pages import Page as ImagePage
from textspot_ray.query.pages import PageWord, read_pages
from textspot_ray.query.views import open_views
from textspot_ray.records import Word

etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
WIDTH, HEIGHT = 640, 480
EXACT, WHOLE = 0.01, 0.501  # px; tables hold 32 bits

Place = tuple[str, list[float]]  # text; x, y, x, y ... of its corners, or of its box
Read = Callable[[str, ImagePage], Iterator[Place]]


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"-?[\d.]+", text)]


def tsv(text: str, page: ImagePage) -> Iterator[Place]:
    for row in csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == "5":
            x, y, width, height = (int(row[k]) for k in ("left", "top", "width", "height"))
            yield row["text"], [x, y, x + width, y + height]


def hocr(text: str, page: ImagePage) -> Iterator[Place]:
    for span in etree.fromstring(text.encode()).iter("{*}span"):
        if span.get("class") == "ocrx_word":
            yield span.text, numbers(span.get("title").split("poly")[1].split(";")[0])


def hocr_boxes(text: str, page: ImagePage) -> Iterator[Place]:
    for span in etree.fromstring(text.encode()).iter("{*}span"):
        if span.get("class") == "ocrx_word":
            yield span.text, numbers(span.get("title").split(";")[0])


def alto(text: str, page: ImagePage) -> Iterator[Place]:
    for string in etree.fromstring(text.encode()).iter("{*}String"):
        yield string.get("CONTENT"), numbers(string.find(".//{*}Polygon").get("POINTS"))


def alto_boxes(text: str, page: ImagePage) -> Iterator[Place]:
    for string in etree.fromstring(text.encode()).iter("{*}String"):
        x, y, width, height = (float(string.get(k)) for k in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
        yield string.get("CONTENT"), [x, y, x + width, y + height]


def page(text: str, page: ImagePage) -> Iterator[Place]:
    for found in etree.fromstring(text.encode()).iter("{*}Word"):
        yield found.findtext(".//{*}Unicode"), numbers(found.find("{*}Coords").get("points"))


def jsonl(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["words"]:
        yield found["text"], found["polygon"]


def jsonl_boxes(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["words"]:
        yield found["text"], found["box"]


def icdar(text: str, page: ImagePage) -> Iterator[Place]:
    for line in text.splitlines():
        *corners, said = line.split(",", 8)
        yield said, [int(value) for value in corners]


def coco(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["annotations"]:
        yield found["attributes"]["text"], found["segmentation"][0]


def coco_boxes(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["annotations"]:
        x, y, width, height = found["bbox"]
        yield found["text"], [x, y, x + width, y + height]


def labelstudio(text: str, page: ImagePage) -> Iterator[Place]:
    (task,) = json.loads(text)
    for found in task["predictions"][0]["result"]:
        if found["type"] == "textarea":
            sides = found["original_width"] / 100, found["original_height"] / 100
            points = found["value"]["points"]
            yield (
                found["value"]["text"][0],
                [v * s for p in points for v, s in zip(p, sides, strict=True)],
            )


def paddleocr(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text.split("\t")[1]):
        yield found["transcription"], [value for point in found["points"] for value in point]


def iiif(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["items"]:
        shape = etree.fromstring(found["target"]["selector"][1]["value"])
        yield found["body"]["value"], numbers(shape[0].get("points"))


def iiif_boxes(text: str, page: ImagePage) -> Iterator[Place]:
    for found in json.loads(text)["items"]:
        x, y, width, height = numbers(found["target"]["selector"][0]["value"])
        yield found["body"]["value"], [x, y, x + width, y + height]


def crops(text: str, page: ImagePage) -> Iterator[Place]:
    for line in text.splitlines():
        found = json.loads(line)
        if found["image_id"] == page.image_id:
            yield found["text"], found["polygon"]


def pdf(text: str, page: ImagePage) -> Iterator[Place]:
    """The middle of the side of the box at which the text begins."""
    points = min(0.48, 14_400 / max(page.width or 1, page.height or 1))  # a pixel
    pattern = r"Unseen (\S+) Tf \S+ Tz (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) Tm <(\w+)>"
    for size, _, _, up_x, up_y, x, y, said in re.findall(pattern, text):
        half = float(size) / 2
        left, low = float(x) + half * float(up_x), float(y) + half * float(up_y)
        place = [left / points, (page.height or 0) - low / points]
        yield bytes.fromhex(said).decode("utf-16-be").removesuffix(" "), place


# How a format is read back, how exact it is, and what of a word it gives.
READERS: dict[str, tuple[Read, float, str]] = {
    "tsv": (tsv, WHOLE, "box"),
    "hocr": (hocr, WHOLE, "inside"),
    "hocr box": (hocr_boxes, WHOLE, "box"),
    "alto": (alto, EXACT, "inside"),
    "alto box": (alto_boxes, WHOLE, "box"),
    "page": (page, WHOLE, "inside"),
    "jsonl": (jsonl, EXACT, "corners"),
    "jsonl box": (jsonl_boxes, EXACT, "box"),
    "icdar": (icdar, WHOLE, "corners"),
    "coco": (coco, EXACT, "inside"),
    "coco box": (coco_boxes, EXACT, "box"),
    "labelstudio": (labelstudio, EXACT, "inside"),
    "paddleocr": (paddleocr, WHOLE, "corners"),
    "iiif": (iiif, EXACT, "inside"),
    "iiif box": (iiif_boxes, WHOLE, "box"),
    "pdf": (pdf, EXACT, "start"),
    "crops": (crops, EXACT, "corners"),
}
IN_TABLE_ORDER = ("icdar", "coco", "labelstudio", "crops")


def place_of(word: PageWord, layout: PageLayout, kind: str) -> list[float]:
    """What the table has of a word's place."""
    x0, y0, x1, y1 = word.box
    if kind == "box":
        return [x0, y0, x1, y1]
    if kind == "start":
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        turn = round(word.angle_deg / 90) % 4
        return [[x0, middle[1]], [middle[0], y0], [x1, middle[1]], [middle[0], y1]][turn]
    inside = all(0 <= x <= layout.width for x in word.polygon[::2]) and all(
        0 <= y <= layout.height for y in word.polygon[1::2]
    )
    if kind == "corners" or inside:
        return list(word.polygon)
    return [value for point in layout.polygon(word) for value in point]


def check(table: str, name: str, folder: Path) -> int:
    """Export, read each image's file back and compare; how many words were compared."""
    format = name.split(" ")[0]
    read, off, kind = READERS[name]
    count = 0
    with open_views(table) as tables:
        out = f"{folder}/crops.tar" if format == "crops" else f"{folder}/"
        export_table(tables, format, out, ExportSettings())
        suffix = ".pdf" if format in WITH_PIXELS else writer_class(format).suffix
        names = FileNames(format, suffix, image_names(tables))
        for image in read_pages(tables):
            if image.status == "failed":
                continue
            layout = PageLayout(image, "")
            words = [word for line in layout.lines for word in line.words]
            words = list(image.words) if format in IN_TABLE_ORDER else words
            file = "crops.tar" if format == "crops" else names.take(image)
            found = list(read(text_of(folder / file), image))
            assert [text for text, _ in found] == [word.text for word in words], image.image_id
            for word, (_, place) in zip(words, found, strict=True):
                assert place == pytest.approx(place_of(word, layout, kind), abs=off), word
            count += len(words)
    return count


@cache
def text_of(file: Path) -> str:
    """What a reader looks at: the file, a PDF's first page, the facts about crops."""
    if file.suffix == ".pdf":
        pikepdf = pytest.importorskip("pikepdf", reason="the extra [pdf] is not installed")
        with pikepdf.open(file) as document:
            return str(document.pages[0].Contents.read_bytes().decode())
    if file.suffix == ".tar":
        with tarfile.open(file) as tar:
            facts = [tar.extractfile(m) for m in tar if m.name.endswith(".json")]
            return "\n".join(fact.read().decode() for fact in facts if fact is not None)
    return file.read_bytes().decode()


def turned(text: str, x: float, y: float, width: float, height: float, degrees: float) -> Word:
    """A word around x, y at an angle; its box is the polygon's bounds within the image."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    points = [(x + (px * c - py * s) / 2, y + (px * s + py * c) / 2) for px, py in corners]
    xs, ys = zip(*points, strict=True)
    box = (max(min(xs), 0), max(min(ys), 0), min(max(xs), WIDTH), min(max(ys), HEIGHT))
    return Word(text, 0.9, (), 0.8, box, tuple(v for p in points for v in p), degrees)


WORDS = (
    turned("straight", 100.123, 40.456, 81.37, 20.11, 0),
    turned("rising", 220.87, 120.31, 150.2, 30.77, -19.7),
    turned("down", 520.49, 110.51, 100.3, 26.4, 90),
    turned("over", 333.33, 300.01, 90.9, 24.4, 178.6),
    turned("leaving", 610.7, 20.2, 120.6, 30.3, -40),
    turned("steep", 60.05, 250.95, 120.25, 30.05, -70),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a b.png", "<c>.png"):
        (folder / name).write_bytes(cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3)))[1].tobytes())
    out = str(tmp_path_factory.mktemp("table"))
    write_run(out, [str(folder)], lambda _: WORDS)
    return out


@pytest.mark.parametrize("name", READERS)
def test_places_are_those_of_the_table(table: str, tmp_path: Path, name: str) -> None:
    assert check(table, name, tmp_path) == 2 * len(WORDS)


def test_every_format_with_places_is_read_back() -> None:
    assert {name.split(" ")[0] for name in READERS} == {*FORMATS} - {"txt"}
