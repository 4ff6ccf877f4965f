from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_run
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.query import pages
from textspot_ray.query.charts import Bar, bar_chart, line_chart, nice_top, short_number
from textspot_ray.query.pages import read_some
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.source_roots import parse_roots
from textspot_ray.query.stats import compute_stats
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.records import ErrorKind
from textspot_ray.web.html import ZOOM, asset, json_in_html, standalone
from textspot_ray.web.image_data import original_link
from textspot_ray.web.view import ViewSettings, render, sample_ids

ATTACKS = [
    "<script>window.evil=1</script>",
    "</script><script>window.evil=1</script>",
    "<img src=x onerror=window.evil=1>",
    "\"'><svg onload=window.evil=1>",
    "<!--<script>",
    "</script <!--<script ",  # ends or hides the element without a ">" of its own
    "]]>\u2028javascript:window.evil=1",
    "{title}{{}}%s",
]


class Tags(HTMLParser):
    """All tags with their attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def picture(path: Path, size: tuple[int, int] = (640, 480)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    pixels[: size[1] // 2] = (0, 0, 200)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def real_table(tmp_path: Path) -> str:
    for n in range(3):
        picture(tmp_path / "src" / f"img_{n}.jpg", (1600, 1200))
    (tmp_path / "src" / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    out = str(tmp_path / "out")
    write_run(
        out, [str(tmp_path / "src")], lambda _: [word("exit"), word("low", 90, 90, 9, 9, 0.2)]
    )
    return out


def test_page_holds_pictures_words_errors_and_figures(real_table: str) -> None:
    with open_views(real_table) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings(title="my table", thumb_px=320))
    tags = parse(page)
    images = json.loads(tags.data)["images"]
    assert len(images) == 3
    assert all(image["src"].startswith("data:image/jpeg;base64,/9j/") for image in images)
    assert [w["t"] for w in images[0]["words"]] == ["exit", "low"]
    assert (images[0]["w"], images[0]["h"]) == (1600, 1200)
    assert "truncated" in page
    assert page.count('<figure class="chart">') == 5
    assert [(w["i"], w["l"]) for w in images[0]["words"]] == [(0, 0), (1, 1)]  # reading order
    assert {image["name"] for image in images} == {f"img_{n}.jpg" for n in range(3)}
    assert images[0]["original"] == images[0]["id"]
    assert "my table" in page


def test_page_needs_nothing_from_outside(real_table: str) -> None:
    with open_views(real_table) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings())
    tags = parse(page)
    for tag, attributes in tags.tags:
        assert attributes.get("href", "#") == "#"
        assert not {"src", "style", "onclick"} & attributes.keys(), tag
    policy = next(a["content"] for t, a in tags.tags if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_the_table_becomes_markup(make_table: MakeTable, attack: str) -> None:
    uri = make_table(
        [
            Page(attack, [word(attack)]),
            Page("x" + attack, error=ErrorKind.CORRUPT, message=attack),
        ]
    )
    with open_views(uri) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings(title=attack))
        plain = render(tables, [], ViewSettings(title="t"))
    tags = parse(page)
    assert [t for t, _ in tags.tags] == [t for t, _ in parse(plain).tags]
    image = json.loads(tags.data)["images"][0]
    assert image["words"][0]["t"] == attack and image["id"] == attack


@example("</script <!--<script >&amp;")
@given(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=5))
def test_json_cannot_end_its_element(value: object) -> None:
    dumped = json_in_html(value)
    assert json.loads(dumped) == value
    assert not set("<>&") & set(dumped)


def test_missing_sources_are_said_on_the_page(real_table: str, tmp_path: Path) -> None:
    (tmp_path / "src" / "img_0.jpg").unlink()
    picture(tmp_path / "src" / "img_1.jpg", (30, 30))
    with open_views(real_table) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings())
    notes = {i["id"][-9:]: i["note"] for i in json.loads(parse(page).data)["images"]}
    assert notes["img_0.jpg"].startswith("missing")
    assert notes["img_1.jpg"].startswith("changed")
    assert notes["img_2.jpg"] == ""


def test_members_of_archives_are_found_through_the_plan(tmp_path: Path) -> None:
    import tarfile
    import zipfile

    file = picture(tmp_path / "a.jpg", (800, 400))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(file, "in/one.jpg")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        tar.add(file, "in/two.jpg")
    out = str(tmp_path / "out")
    write_run(out, [str(tmp_path / "all.zip"), str(tmp_path / "all.tar.gz")], lambda _: [word("x")])
    with open_views(out) as tables, Pictures(tables.files.store) as pictures:
        ids = sample_ids(tables, 10)
        found = list(pictures.scaled(list(read_some(tables, ids).values()), 200))
    assert len(found) == 2
    assert all(p.jpeg and (p.width, p.height) == (200, 100) and not p.note for _, p in found)


def test_figures_add_up(make_table: MakeTable) -> None:
    uri = make_table(
        [Page("a.jpg", [word("exit", confidence=1.0), word("no")]), Page("b.jpg")],
        [Page("c.jpg", error=ErrorKind.CORRUPT)],
    )
    with open_views(uri) as tables:
        figures = compute_stats(tables).figures
    assert (figures.totals.images, figures.totals.words, figures.totals.failed) == (3, 2, 1)
    assert sum(bin.count for bin in figures.confidence) == 2
    assert figures.confidence[19].count == 1
    assert [(b.label, b.count) for b in figures.word_length if b.count] == [("2", 1), ("4", 1)]
    assert [(b.label, b.count) for b in figures.words_per_image if b.count] == [("0", 1), ("2", 1)]
    assert figures.failures[0].label == "decode corrupt"
    assert dict(figures.stage_s)["detect"] == pytest.approx(0.3)
    assert len(figures.runs) == 1


def test_empty_tables_make_pages(make_table: MakeTable) -> None:
    with open_views(make_table()) as tables:
        page = render(tables, sample_ids(tables, 5), ViewSettings())
    assert "No image failed" in page


def test_charts_escape_and_scale() -> None:
    chart = bar_chart("<b>", [Bar("<i>", 3.0, "<u>")], "<s>", "<q>")
    drawn = standalone(
        "diff.html",
        title="t",
        subtitle="",
        note="",
        tabs=(),
        opened="summary",
        counts=(),
        charts=(chart, line_chart("empty", []), line_chart("one", [(1, 1)])),
        settings=(),
        statuses=(),
        changes=(),
    )
    assert drawn.count("<figure") == 3 and "&lt;u&gt;" in drawn
    assert not re.search("<[biusq]>", drawn.partition("</style>")[2].replace("<b class", ""))
    assert [nice_top(v) for v in (0, 1, 3, 17, 99, 101)] == [1, 1, 4, 20, 100, 200]
    assert [short_number(v) for v in (0, 0.125, 12345, 2.5e6)] == ["0", "0.125", "12.3k", "2.5M"]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_bars_and_labels_stay_inside_the_drawing(values: list[int]) -> None:
    chart = bar_chart("t", [Bar(f"{n}-{n + 9}", value) for n, value in enumerate(values)])
    assert len(chart.bars) == len(values)
    for bar in chart.bars:
        assert 0 <= bar.y <= bar.y + bar.height <= chart.floor + 1e-6
        assert chart.left <= bar.x and bar.x + bar.width <= chart.right
    assert float(chart.y_ticks[0].at) == chart.floor
    gaps = [b.at - a.at for a, b in pairwise(chart.x_ticks)]
    widest = max(len(tick.label) for tick in chart.x_ticks)
    assert all(gap >= 7 * widest for gap in gaps)  # labels do not touch
    if max(values) <= 10:  # of whole things there are no halves
        assert all("." not in tick.label for tick in chart.y_ticks)


def test_openseadragon_is_as_npm_has_it() -> None:
    """Version 6.1.1, `npm pack openseadragon@6.1.1`, file build/openseadragon/."""
    content = asset(ZOOM)
    assert 'versionStr:"6.1.1"' in content and "</script" not in content
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert digest == "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
    assert "Redistributions in binary form" in asset("openseadragon/LICENSE.txt")


def test_words_below_the_threshold_are_told(real_table: str) -> None:
    with open_views(real_table) as tables:
        known = {**tables.files.fingerprint, "text_threshold": "0.5"}
        files = dataclasses.replace(tables.files, fingerprint=known)
    with TableViews(files) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings())
        assert compute_stats(tables).figures.totals.below == 3
        strict = render(tables, [], ViewSettings(min_confidence=0.95))
    assert "3 of 6 words were read with less confidence than 0.5 and" in page
    assert "6 of 6 words were read with less confidence than 0.95 and" in strict


def test_large_pictures_can_be_whole(real_table: str) -> None:
    with open_views(real_table) as tables:
        page = render(tables, sample_ids(tables, 1), ViewSettings(thumb_px=None))
    source = json.loads(parse(page).data)["images"][0]["src"]
    pixels = cv2.imdecode(
        np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR
    )
    assert pixels is not None and pixels.shape[:2] == (1200, 1600)


def test_moved_pictures_are_shown_and_linked_where_they_are(
    real_table: str, tmp_path: Path
) -> None:
    (tmp_path / "src").rename(tmp_path / "moved here")
    roots = parse_roots([f"{tmp_path / 'src'}={tmp_path / 'moved here'}"])
    with open_views(real_table) as tables:
        page = render(tables, sample_ids(tables, 10), ViewSettings(source_roots=roots))
    images = json.loads(parse(page).data)["images"]
    assert len(images) == 3
    for image in images:
        assert image["src"] and "/moved%20here/img_" in image["original"]


@pytest.mark.parametrize(
    ("source", "member", "link"),
    [
        ("file:///a/b.jpg", None, "file:///a/b.jpg"),
        ("https://host.example/b.jpg", None, "https://host.example/b.jpg"),
        ("file:///a/b.tar", "x.jpg", None),
        ("s3://bucket/b.jpg", None, None),
        ("javascript:alert(1)", None, None),
        ("data:text/html,x", None, None),
    ],
)
def test_only_what_a_browser_opens_safely_is_linked(
    source: str, member: str | None, link: str | None
) -> None:
    page = pages.Page("i", source, member, 0, 1, 1, "words", None, None, ())
    assert original_link(page) == link


def test_command_writes_a_page(
    real_table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert run_command("view", [real_table, "-o", str(out), "--sample", "2"]) == ExitCode.OK
    assert len(json.loads(parse(out.read_text()).data)["images"]) == 2
    assert run_command("view", [real_table, "-o", str(out), "--search", "exit"]) == ExitCode.OK
    marks = [w["hit"] for w in json.loads(parse(out.read_text()).data)["images"][0]["words"]]
    assert marks == [True, False]
    out.unlink()
    assert run_command("view", [real_table, "-o", str(out), "--search", "zzz"]) == ExitCode.NO_MATCH
    assert not out.exists()
    run_command("search", [real_table, "exit", "--html", str(out)])
    assert re.search(r"<title>textspot-ray: exit</title>", out.read_text())
    assert run_command("view", [real_table, "-o", str(out), "--thumb", "0"]) == ExitCode.OK
    with pytest.raises(UsageError, match="cannot write"):
        run_command("view", [real_table, "-o", str(tmp_path / "no" / "page.html")])


def test_a_page_of_hits_reads_pictures_with_the_storage_options(
    real_table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    class Noted(Pictures):
        def __init__(self, store: Any, options: Any = None, **more: Any) -> None:
            given.append(options)
            super().__init__(store, options, **more)

    monkeypatch.setattr("textspot_ray.web.view.Pictures", Noted)
    options = {"s3": {"anon": True}}
    arguments = [real_table, "exit", "--html", str(tmp_path / "hits.html")]
    run_command("search", [*arguments, "--storage-options", json.dumps(options)])
    assert given == [options]
