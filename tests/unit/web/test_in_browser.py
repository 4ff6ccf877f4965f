"""The pages in headless Chromium: keys, links, phones, attacks, and axe's rules."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.hostile_table import EVIL, hostile_words, write_hostile_table
from tests.support.insight_tables import MakeTable, Page, word, write_run
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind
from textspot_ray.web.view import ViewSettings, render, sample_ids

pytest.importorskip("starlette", reason="the extra [browse] is not installed")
api = pytest.importorskip("playwright.sync_api", reason="the extra [browser-test] is missing")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="[browser-test]")

from textspot_ray.web.browse import serve
from textspot_ray.web.browse_data import BrowseData

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_hostile_table(
        tmp_path_factory.mktemp("browse"),
        (2000, 1500),
        [word("long" * 40, 9, 300, 600, 30, confidence=0.8)],
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(table: str) -> Iterator[str]:
    """The live page in a thread of its own; it ends with the process."""
    ready: SimpleQueue[str] = SimpleQueue()
    with open_views(table) as tables:
        data = BrowseData(tables)
        threading.Thread(
            target=serve,
            args=(data, f"t {EVIL}"),
            kwargs={"port": 0, "on_ready": ready.put},
            daemon=True,
        ).start()
        yield ready.get(timeout=30)


class Watched:
    """A page whose errors, blocked content and evil are remembered."""

    def __init__(self, browser: Any, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda exc: self.faults.append(str(exc)))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "status of 40" not in message.text:
            self.faults.append(message.text)

    def check(self) -> None:
        assert self.page.evaluate("window.evil") is None
        assert self.faults == []
        self.context.close()


@pytest.fixture
def live(browser: Any, address: str) -> Iterator[Any]:
    watched = Watched(browser)
    watched.page.goto(address)
    watched.page.wait_for_selector(".card")
    yield watched.page
    watched.check()


@pytest.fixture(scope="module")
def static_page(table: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    with open_views(table) as tables:
        html = render(tables, sample_ids(tables, 30), ViewSettings(title=f"t {EVIL}", thumb_px=320))
    path = tmp_path_factory.mktemp("static") / "page.html"
    path.write_text(html)
    return path.as_uri()


@pytest.fixture
def static(browser: Any, static_page: str) -> Iterator[Any]:
    watched = Watched(browser)
    watched.page.goto(static_page)
    yield watched.page
    watched.check()


def state(page: Any) -> dict[str, str]:
    return dict(page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"))


SCALE = "document.querySelector('dialog .overlay g').transform.baseVal[0].matrix.a"


def until(page: Any, expression: str) -> None:
    """Wait for a condition; Playwright's own waiting is code that the page's policy refuses."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def find(page: Any, terms: str) -> None:
    page.fill("#terms", terms)
    page.press("#terms", "Enter")


def test_search_pictures_errors_and_sql(live: Any) -> None:
    expect = api.expect
    assert "token" not in live.url
    assert live.locator(".card").count() == 24
    find(live, "w7")
    expect(live.locator(".card")).to_have_count(1)
    expect(live.locator("#shown")).to_have_text("1 hit in 1 image")
    live.wait_for_load_state("networkidle")
    assert live.evaluate("document.querySelector('.card img').naturalWidth") == 960
    live.hover(".card polygon.hit", force=True)
    assert live.inner_text("#tip").startswith("w7")
    live.fill("#least", "0.5")
    live.dispatch_event("#least", "change")
    expect(live.locator("#shown")).to_have_text("Nothing found.")
    live.fill("#least", "0")
    find(live, "w3")
    live.wait_for_selector(".card .none")
    assert "missing" in live.inner_text(".card .none")
    live.click("role=tab[name=/Errors/]")
    live.wait_for_selector("#error-table td")
    assert live.locator("#error-table tbody tr").count() == 2
    live.click("role=tab[name=Figures]")
    assert live.locator(".chart").count() == 5
    live.click("role=tab[name=SQL]")
    live.fill("#statement", "SELECT text, 1/3 AS third FROM words WHERE text LIKE '<%' LIMIT 1")
    live.click("#run")
    live.wait_for_selector("#sql-table td")
    assert live.inner_text("#sql-table td") == EVIL
    assert live.inner_text("#sql-table td.number") == "0.33333"
    live.fill("#statement", "DROP VIEW words")
    live.click("#run")
    expect(live.locator("#sql-message")).to_contain_text("read-only")


def test_everything_goes_by_keyboard(live: Any) -> None:
    expect = api.expect
    live.focus("role=tab[name=/Images/]")
    for key, name in (("ArrowRight", "errors"), ("End", "sql"), ("ArrowRight", "images")):
        live.keyboard.press(key)
        assert live.locator(f"#{name}").is_visible()
        assert live.evaluate("document.activeElement.id") == f"tab-{name}"
    live.keyboard.press("/")
    live.keyboard.type("exit")
    live.keyboard.press("Enter")
    expect(live.locator("#shown")).to_contain_text("30 hits")
    live.locator("button.picture").first.focus()
    live.keyboard.press("Enter")
    expect(live.locator("dialog[open] .position")).to_have_text("1 hit")
    first = live.inner_text("dialog h2")
    live.keyboard.press("n")
    expect(live.locator("dialog .position")).to_have_text("hit 1 of 1")
    expect(live.locator("dialog .overlay polygon.on")).to_have_count(1)
    live.keyboard.press("n")  # on to the next image
    expect(live.locator("dialog h2")).not_to_have_text(first)
    live.keyboard.press("p")
    live.keyboard.press("p")
    expect(live.locator("dialog h2")).to_have_text(first)
    for _ in range(24):  # past the end of what was loaded
        before = live.inner_text("dialog h2")
        live.keyboard.press("ArrowRight")
        expect(live.locator("dialog h2")).not_to_have_text(before)
    assert state(live)["offset"] == "24"
    live.keyboard.press("b")
    assert live.get_attribute("dialog >> text=Boxes", "aria-pressed") == "false"
    live.keyboard.press("Escape")
    live.wait_for_selector("dialog", state="detached")
    focused = live.evaluate("document.activeElement.className")
    assert focused == "picture"  # of the image that was shown


def test_words_are_chosen_by_arrows_and_zoomed_to(live: Any) -> None:
    live.locator(".card .word").first.focus()
    live.keyboard.press("ArrowRight")
    assert live.evaluate("document.activeElement.textContent").startswith("w")
    live.keyboard.press("Enter")
    live.wait_for_selector("dialog[open] .overlay polygon.on")
    until(live, f"{SCALE} > 1")
    assert state(live)["word"] == "1"


def test_the_large_view_shows_the_images_own_pixels(live: Any) -> None:
    tiles: list[str] = []
    live.on("request", lambda request: tiles.append(request.url))
    live.locator("button.picture").first.click(position={"x": 5, "y": 5})
    live.wait_for_selector("dialog[open]")
    live.keyboard.press("1")
    until(live, f"Math.abs({SCALE} - 1) < 0.01")
    live.wait_for_load_state("networkidle")
    assert any("/tile?" in url and "level=11" in url for url in tiles)  # 2000 px are 2^11 at most
    with live.expect_download() as download:
        live.click("dialog >> text=Original")
    assert download.value.suggested_filename.endswith(".jpg")


def test_links_open_what_was_seen(live: Any, browser: Any, address: str) -> None:
    expect = api.expect
    live.click("text=More filters")
    live.fill("#name", "img_2")
    live.press("#name", "Enter")
    expect(live.locator(".card")).to_have_count(11)
    live.select_option("#script", "Digits")
    find(live, "w21")
    expect(live.locator(".card")).to_have_count(1)
    live.locator(".card .word").nth(1).click()
    live.wait_for_selector("dialog[open] .overlay polygon.on")
    assert state(live).keys() == {"terms", "name", "script", "image", "word"}
    other = Watched(browser)
    other.page.goto(f"{address}#{live.url.partition('#')[2]}")
    expect(other.page.locator("dialog[open] .position")).to_have_text("hit 1 of 1")
    assert other.page.input_value("#terms") == "w21"
    assert other.page.input_value("#name") == "img_2"
    assert other.page.locator("#more").get_attribute("open") is not None
    other.page.go_back()  # to before the page: nothing to check but that it does not fail
    other.check()
    live.go_back()
    live.wait_for_selector("dialog", state="detached")
    live.go_back()
    expect(live.locator("#terms")).to_have_value("")
    expect(live.locator(".card")).to_have_count(11)


def test_text_is_copied_in_reading_order(live: Any) -> None:
    live.context.grant_permissions(["clipboard-read", "clipboard-write"])
    find(live, "w7")
    api.expect(live.locator(".card")).to_have_count(1)
    live.click(".card >> text=Copy text")
    api.expect(live.locator("#said")).to_contain_text("copied")
    text = live.evaluate("navigator.clipboard.readText()")
    assert text.splitlines() == ["exit", "w7", EVIL, "long" * 40]


def test_hits_are_downloaded(live: Any) -> None:
    find(live, "w7")
    api.expect(live.locator(".card")).to_have_count(1)
    with live.expect_download() as download:
        live.click("#download-jsonl")
    (line,) = Path(download.value.path()).read_text().splitlines()
    assert json.loads(line)["text"] == "w7"


def test_static_page(static: Any) -> None:
    assert static.locator(".card:visible").count() == 30
    static.fill("#filter", "w7")
    assert static.locator(".card:visible").count() == 1
    assert static.locator(".card:visible polygon.hit").count() == 1
    assert static.inner_text("#shown") == "1 word in 1 image"
    with static.expect_download() as download:
        static.click("#download-csv")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 2 and lines[0].startswith("image_id,text") and ",w7," in lines[1]
    assert state(static) == {"filter": "w7"}
    static.fill("#filter", "")
    static.fill("#least", "0.5")
    assert static.inner_text("#shown") == "90 words in 30 images; 30 more below 0.50"
    static.select_option("#script", "Cyrillic")
    assert static.locator(".card:visible").count() == 0
    static.select_option("#script", "")
    static.hover(".card:visible polygon >> nth=0", force=True)
    assert static.inner_text("#tip").startswith("exit")
    static.locator(".card:visible .picture").first.click(position={"x": 5, "y": 5})
    assert static.locator("dialog[open]").count() == 1
    static.keyboard.press("n")
    api.expect(static.locator("dialog .position")).to_have_text("word 1 of 3")
    static.keyboard.press("Escape")
    static.wait_for_selector("dialog", state="detached")
    static.click("role=tab[name=/Errors/]")
    assert "truncated" in static.inner_text("#errors")
    static.click("role=tab[name=Figures]")
    assert static.locator(".chart:visible").count() == 5
    static.reload()  # the address remembers
    assert static.locator(".chart:visible").count() == 5
    assert static.input_value("#least") == "0.5"


def test_attacks_do_not_run(browser: Any, make_table: MakeTable, tmp_path: Path) -> None:
    attacks = [
        "<script>window.evil=1</script>",
        "</script><script>window.evil=1</script>",
        EVIL,
        "\"'><svg onload=window.evil=1>",
        "javascript:window.evil=1",
    ]
    uri = make_table(
        [Page(attack, [word(attack)], source="javascript:window.evil=1") for attack in attacks]
        + [Page("e" + attack, error=ErrorKind.CORRUPT, message=attack) for attack in attacks]
    )
    with open_views(uri) as tables:
        html = render(tables, sample_ids(tables, 30), ViewSettings(title=attacks[1]))
    (tmp_path / "page.html").write_text(html)
    watched = Watched(browser)
    page = watched.page
    page.goto((tmp_path / "page.html").as_uri())
    for shown in page.locator(".card .word").all():
        shown.hover()
        shown.click()
        page.wait_for_selector("dialog[open]")
        assert page.locator("dialog >> text=Original").is_hidden()
        page.keyboard.press("Escape")
    page.click("role=tab[name=/Errors/]")
    assert page.locator("#errors tbody tr").count() == len(attacks)
    page.goto(
        (tmp_path / "page.html").as_uri() + "#filter=%3Cimg%20src=x%20onerror=window.evil=1%3E"
    )
    page.reload()
    watched.check()


def findings(page: Any) -> list[str]:
    """What axe and widths of phones, tablets and screens find wrong with a page."""
    found: list[str] = []
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if wide > 0:
            found.append(f"{width}: {wide} px too wide")
        for scheme in {390: ["light"], 1280: ["light", "dark"]}.get(width, ()):
            page.emulate_media(color_scheme=scheme)
            told = axe.Axe().run(page).response
            assert len(told["passes"]) > 10
            for rule in told["violations"]:
                targets = [node["target"] for node in rule["nodes"][:3]]
                found.append(f"{width} {scheme}: {rule['id']} ({rule['impact']}) {targets}")
    return found


NO_SQL = ("sql", "static")
VIEWS = {
    "images": "",
    "errors": "tab=errors",
    "figures": "tab=figures",
    "sql": "tab=sql",
    "filters": "status=words&script=Latin",
    "viewer": "terms=exit&image={image}&word=0",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in VIEWS for kind in ("live", "static") if (name, kind) != NO_SQL],
)
def test_axe_finds_nothing_and_nothing_overflows(
    browser: Any, address: str, static_page: str, name: str, kind: str
) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(address)
    page.wait_for_selector(".card")
    image = page.get_attribute(".card", "data-id")
    page.goto("about:blank")
    base = address.partition("?")[0] if kind == "live" else static_page
    page.goto(f"{base}#{VIEWS[name].replace('{image}', image)}")
    page.wait_for_load_state("networkidle")
    if name == "viewer":
        page.wait_for_selector("dialog[open] .overlay polygon.on")
    if name == "sql":
        page.click("#run")
        page.wait_for_selector("#sql-table td")
    found = findings(page)
    watched.check()
    assert found == []


@pytest.mark.parametrize("name", ["diff", "misses"])
def test_axe_finds_nothing_on_pages_of_comparisons(
    browser: Any, table: str, tmp_path: Path, name: str
) -> None:
    from textspot_ray.cli import main

    out = tmp_path / "page.html"
    if name == "diff":
        source = Path(table).parent / "src"
        write_run(str(tmp_path / "other"), [str(source)], lambda item: hostile_words(item)[1:])
        assert main(["diff", table, str(tmp_path / "other"), "--html", str(out)]) == 0
    else:
        (tmp_path / "gt").mkdir()
        for n in range(30):
            lines = "20,20,110,20,110,60,20,60,exits\n9,400,99,400,99,440,9,440,unseen\n"
            (tmp_path / "gt" / f"gt_img_{n}.txt").write_text(lines)
        arguments = ["evaluate", table, "--gt", str(tmp_path / "gt"), "--misses", str(out)]
        assert main(arguments) == 0
    watched = Watched(browser)
    page = watched.page
    page.goto(out.as_uri())
    assert findings(page) == []
    page.click("role=tab[name=/Images/]")
    page.wait_for_selector(".card")
    assert findings(page) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body"), "keys reach something"
    watched.check()
