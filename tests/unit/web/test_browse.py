from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_run
from textspot_ray.errors import UsageError
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind, Item, Word
from textspot_ray.web.view import ViewSettings, render, sample_ids

pytest.importorskip("starlette", reason="the extra [browse] is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")
from starlette.testclient import TestClient

from textspot_ray.web.browse import is_loopback, make_app, serve
from textspot_ray.web.browse_data import BrowseData

EVIL = "<img src=x onerror=window.evil=1>"


def words_of(item: Item) -> list[Word]:
    number = int(re.findall(r"\d+", item.image_id)[-1])
    return [
        word("exit", 20, 20, 90, 40),
        word(f"w{number}", 20, 90, confidence=0.3),
        word(EVIL, 9, 200),
    ]


@pytest.fixture
def table(tmp_path: Path) -> str:
    source = tmp_path / "src"
    source.mkdir()
    for n in range(30):
        cv2.imwrite(str(source / f"img_{n}.jpg"), np.full((480, 640, 3), 8 * n, np.uint8))
    (source / "broken_99.jpg").write_bytes(b"\xff\xd8\xff no")
    (source / f"{EVIL.replace('/', '')}_98.jpg").write_bytes(b"\xff\xd8\xff no")
    write_run(str(tmp_path / "out"), [str(source)], words_of)
    (source / "img_3.jpg").unlink()
    return str(tmp_path / "out")


@pytest.fixture
def client(table: str) -> Iterator[TestClient]:
    with open_views(table) as tables:
        data = BrowseData(tables, sql_timeout_s=1.0)
        yield TestClient(make_app(data, f"t {EVIL}"), base_url="http://localhost:8000")
        data.close()


def test_page_and_assets_come_with_the_policy(client: TestClient) -> None:
    for path in ("/", "/page.css", "/cards.js", "/browse.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<img" not in client.get("/").text


def test_search_pages_through_hits(client: TestClient) -> None:
    first = client.get("/api/images", params={"terms": "exit", "count": 20}).json()
    assert first["total"] == 30 and len(first["images"]) == 20
    rest = client.get("/api/images", params={"terms": "exit", "count": 20, "offset": 20}).json()
    ids = [image["id"] for image in first["images"] + rest["images"]]
    assert len(set(ids)) == 30
    assert [w["hit"] for w in first["images"][0]["words"]] == [True, False, False]
    one = client.get("/api/images", params={"terms": "w7", "mode": "exact"}).json()
    assert one["images"][0]["id"].endswith("img_7.jpg")
    none = client.get("/api/images", params={"terms": "w7", "least": 0.5}).json()
    assert none["total"] == 0
    everything = client.get("/api/images").json()
    assert everything["total"] == 32


@pytest.mark.parametrize(
    "parameters",
    [
        {"terms": "x", "mode": "nonsense"},
        {"terms": "(", "mode": "regex"},
        {"terms": "x", "distance": 99, "mode": "fuzzy"},
        {"offset": -1},
        {"count": "many"},
        {"least": "a"},
    ],
)
def test_bad_questions_are_answered_with_one_line(
    client: TestClient, parameters: dict[str, Any]
) -> None:
    answer = client.get("/api/images", params=parameters)
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]


def test_pictures_are_scaled_and_only_of_the_table(client: TestClient, tmp_path: Path) -> None:
    ids = {
        i["id"][-9:]: i["id"]
        for i in client.get("/api/images", params={"count": 200}).json()["images"]
    }
    answer = client.get("/picture", params={"id": ids["img_7.jpg"], "px": 320})
    assert answer.headers["content-type"] == "image/jpeg"
    pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and pixels.shape[:2] == (240, 320)
    missing = client.get("/picture", params={"id": ids["img_3.jpg"]})
    assert missing.status_code == 404 and missing.text.startswith("missing")
    assert client.get("/api/reason", params={"id": ids["img_3.jpg"]}).json()["error"]
    secret = tmp_path / "secret.jpg"
    shutil.copy(tmp_path / "src" / "img_7.jpg", secret)
    for image_id in (str(secret), secret.as_uri(), "", "../secret.jpg"):
        assert client.get("/picture", params={"id": image_id}).status_code == 404


def test_errors_are_listed(client: TestClient) -> None:
    answer = client.get("/api/errors").json()
    assert answer["total"] == 2 and answer["names"][0] == "image_id"


def run_sql(client: TestClient, sql: str) -> tuple[int, Any]:
    answer = client.post("/api/sql", json={"sql": sql})
    return answer.status_code, answer.json()


def test_sql_reads_and_nothing_else(client: TestClient) -> None:
    status, answer = run_sql(client, "SELECT count(*) AS n, 'nan'::FLOAT AS x FROM words")
    assert (status, answer["names"], answer["rows"]) == (200, ["n", "x"], [[90, None]])
    for sql in ("DROP VIEW words", "COPY words TO '/tmp/x'", "SELECT 1; DROP VIEW words", "nope"):
        status, answer = run_sql(client, sql)
        assert status == 400 and answer["error"].startswith("SQL")
    status, answer = run_sql(client, "SELECT * FROM range(10000)")
    assert len(answer["rows"]) == 500 and answer["more"]
    assert run_sql(client, "FROM words")[0] == 200


def test_long_statements_are_stopped(client: TestClient) -> None:
    start = time.monotonic()
    status, answer = run_sql(client, "SELECT count(*) FROM range(9000000) a, range(900000) b")
    assert status == 400 and "stopped after 1 s" in answer["error"]
    assert time.monotonic() - start < 20
    assert run_sql(client, "SELECT 1 AS one")[0] == 200


def test_bodies_are_checked(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    for body in ("{", "[]", '{"sql": 1}', json.dumps({"sql": "x" * 200_000})):
        assert client.post("/api/sql", content=body, headers=headers).status_code == 400
    assert client.post("/api/sql", data={"sql": "SELECT 1"}).status_code == 403
    assert client.get("/api/sql").status_code == 405


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.5", False),
        ("", False),
        ("[evil]", False),
    ],
)
def test_only_loopback_names_are_served(client: TestClient, host: str, allowed: bool) -> None:
    assert is_loopback(host) is allowed
    answer = client.get("/api/errors", headers={"host": host})
    assert answer.status_code == (200 if allowed else 403)


def test_other_sites_are_refused(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        answer = client.post("/api/sql", json={"sql": "SELECT 1"}, headers={"origin": origin})
        assert answer.status_code == 403
    answer = client.post(
        "/api/sql", json={"sql": "SELECT 1"}, headers={"origin": "http://localhost:8000"}
    )
    assert answer.status_code == 200


def test_a_taken_port_is_one_line(table: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="--port"):
            run_command("browse", [table, "--port", str(taken.getsockname()[1])])


def test_connections_are_taken_from_the_moment_the_address_is_told(table: str) -> None:
    """``--open`` starts a browser at that moment, long before the server runs on a busy machine."""

    def connect(address: str) -> None:
        port = int(address.rstrip("/").rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        raise KeyboardInterrupt

    with open_views(table) as tables, pytest.raises(KeyboardInterrupt):
        serve(BrowseData(tables), "t", port=0, on_ready=connect)


# --- in a browser ---------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def address(table: str) -> Iterator[str]:
    """The live page in a thread of its own; it ends with the process."""
    found: list[str] = []
    with open_views(table) as tables:
        data = BrowseData(tables)
        threading.Thread(
            target=serve,
            args=(data, f"t {EVIL}"),
            kwargs={"port": 0, "on_ready": found.append},
            daemon=True,
        ).start()
        for _ in range(200):
            if found:
                break
            time.sleep(0.05)
        yield found[0]


def watched(browser: Any) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda exc: faults.append(str(exc)))
    page.on(
        "console",
        lambda m: (
            faults.append(m.text) if m.type == "error" and "status of 40" not in m.text else None
        ),
    )
    return page, faults


@pytest.mark.browser
def test_live_page_in_a_browser(browser: Any, address: str) -> None:
    from playwright.sync_api import expect

    page, faults = watched(browser)
    page.goto(address)
    page.wait_for_selector(".card")
    assert page.locator(".card").count() == 24
    page.fill("#terms", "w7")
    page.press("#terms", "Enter")
    expect(page.locator(".card")).to_have_count(1)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('.card img').naturalWidth") == 640
    page.hover(".card polygon.hit", force=True)
    assert page.inner_text("#tip").startswith("w7")
    page.click(".card .picture")
    assert page.locator("dialog[open] .chip").count() == 3
    page.click("dialog .close")
    page.fill("#least", "0.5")
    page.dispatch_event("#least", "change")
    expect(page.locator("#message")).to_have_text("nothing found")
    page.fill("#least", "0")
    page.fill("#terms", "w3")
    page.press("#terms", "Enter")
    page.wait_for_selector(".card .none")
    assert "missing" in page.inner_text(".card .none")
    page.click("nav >> text=Errors")
    page.wait_for_selector("#error-table td")
    assert page.locator("#error-table tbody tr").count() == 2
    page.click("nav >> text=Figures")
    assert page.locator(".chart").count() == 5
    page.click("nav >> text=SQL")
    page.fill("#statement", "SELECT text FROM words WHERE text LIKE '<%' LIMIT 1")
    page.click("#run")
    page.wait_for_selector("#sql-table td")
    assert page.inner_text("#sql-table td") == EVIL
    page.fill("#statement", "DROP VIEW words")
    page.click("#run")
    expect(page.locator("#sql-message")).to_contain_text("read-only")
    assert page.evaluate("window.evil") is None
    assert faults == []


@pytest.mark.browser
def test_static_page_in_a_browser(browser: Any, table: str, tmp_path: Path) -> None:
    with open_views(table) as tables:
        html = render(tables, sample_ids(tables, 30), ViewSettings(title=f"t {EVIL}"))
    (tmp_path / "page.html").write_text(html)
    page, faults = watched(browser)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator(".card:visible").count() == 30
    page.fill("#filter", "w7")
    assert page.locator(".card:visible").count() == 1
    assert page.locator(".card:visible polygon.hit").count() == 1
    assert page.inner_text("#shown") == "1 words in 1 images"
    page.fill("#filter", "")
    page.fill("#least", "0.5")
    assert page.inner_text("#shown") == "60 words in 30 images"
    assert page.locator(".chip:visible").count() == 60
    page.hover(".card:visible polygon", force=True)
    assert page.inner_text("#tip").startswith("exit")
    page.click(".card:visible .picture")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.click("nav >> text=Errors")
    assert "not_an_image" in page.inner_text("#errors") or "truncated" in page.inner_text("#errors")
    page.click("nav >> text=Figures")
    assert page.locator(".chart:visible").count() == 5
    assert page.evaluate("window.evil") is None
    assert faults == []


@pytest.mark.browser
def test_attacks_do_not_run_in_a_browser(
    browser: Any, make_table: MakeTable, tmp_path: Path
) -> None:
    attacks = [
        "<script>window.evil=1</script>",
        "</script><script>window.evil=1</script>",
        EVIL,
        "\"'><svg onload=window.evil=1>",
        "javascript:window.evil=1",
    ]
    uri = make_table(
        [Page(attack, [word(attack)]) for attack in attacks]
        + [Page("e" + attack, error=ErrorKind.CORRUPT, message=attack) for attack in attacks]
    )
    with open_views(uri) as tables:
        html = render(tables, sample_ids(tables, 30), ViewSettings(title=attacks[1]))
    (tmp_path / "page.html").write_text(html)
    page, faults = watched(browser)
    page.goto((tmp_path / "page.html").as_uri())
    for chip in page.locator(".chip").all():
        chip.hover()
    page.click("nav >> text=Errors")
    assert page.locator("#errors tbody tr").count() == len(attacks)
    assert page.evaluate("window.evil") is None
    assert faults == []
