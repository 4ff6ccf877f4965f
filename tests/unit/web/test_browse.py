from __future__ import annotations

import csv
import io
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile_table import EVIL, write_hostile_table
from tests.support.insight_tables import (
    MakeTable,
    Page,
    replace_columns,
    run_command,
    word,
    write_run,
)
from textspot_ray.errors import UsageError
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind
from textspot_ray.web.view import ViewSettings, render, sample_ids

pytest.importorskip("starlette", reason="the extra [browse] is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")
from starlette.testclient import TestClient

from textspot_ray.query.search import SearchQuery
from textspot_ray.web import browse_data
from textspot_ray.web.browse import is_loopback, make_app, serve
from textspot_ray.web.browse_data import BrowseData, Question, Recent
from textspot_ray.web.tiles import TILE_PX, cut_tile, top_level

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_hostile_table(tmp_path_factory.mktemp("browse"))


@pytest.fixture
def client(table: str) -> Iterator[TestClient]:
    with open_views(table) as tables:
        data = BrowseData(tables, sql_timeout_s=1.0)
        yield TestClient(
            make_app(data, f"t {EVIL}", TOKEN),
            base_url="http://localhost:8000",
            cookies={"textspot-8000": TOKEN},
        )
        data.close()


def test_page_and_assets_come_with_the_policy(client: TestClient) -> None:
    scripts = re.findall(r'<script src="([^"]+)"', client.get("/").text)
    assert len(scripts) == 5
    for path in ("/", "/page.css", *(f"/{name}" for name in scripts)):
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


def test_images_that_failed_come_last_and_none_twice(client: TestClient) -> None:
    seen: list[tuple[str, bool]] = []
    for offset in range(0, 35, 7):
        page = client.get("/api/images", params={"offset": offset, "count": 7}).json()["images"]
        seen += [(image["id"], image["readable"]) for image in page]
    assert len({image_id for image_id, _ in seen}) == len(seen) == 32
    assert [readable for _, readable in seen] == [True] * 30 + [False] * 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"terms": "x", "mode": "nonsense"},
        {"terms": "(", "mode": "regex"},
        {"terms": "x", "distance": 99, "mode": "fuzzy"},
        {"offset": -1},
        {"offset": 10**30},
        {"offset": "9" * 5000},
        {"count": "many"},
        {"count": 0},
        {"least": "a"},
        {"least": "nan"},
        {"least": 2},
        {"status": "'; DROP VIEW words"},
        {"script": "Klingon"},
        {"combine": "nonsense"},
        {"terms": "x", "distance": -1, "mode": "fuzzy"},
    ],
)
def test_bad_questions_are_answered_with_one_line(
    client: TestClient, parameters: dict[str, Any]
) -> None:
    for path in ("/api/images", "/api/hits.csv"):
        if path == "/api/hits.csv" and parameters.keys() & {"offset", "count"}:
            continue
        answer = client.get(path, params=parameters)
        assert answer.status_code == 400
        assert "\n" not in answer.json()["error"] and len(answer.json()["error"]) < 300


@pytest.mark.parametrize("offset", ["-1", str(10**30), "x"])
def test_absurd_offsets_of_errors_are_no_fault_of_ours(client: TestClient, offset: str) -> None:
    assert client.get("/api/errors", params={"offset": offset}).status_code == 400


def images_of(client: TestClient, **parameters: Any) -> list[str]:
    answer = client.get("/api/images", params={"count": 200, **parameters}).json()
    names = [image["name"] for image in answer["images"]]
    assert answer["total"] == len(names)
    return sorted(names)


def test_filters_leave_what_they_name(client: TestClient) -> None:
    assert images_of(client, name="IMG_7") == ["img_7.jpg"]
    assert images_of(client, name="*img_1?.jpg") == [f"img_1{n}.jpg" for n in range(10)]
    assert len(images_of(client, source="src")) == 32
    assert images_of(client, source="elsewhere") == []
    assert len(images_of(client, status="words")) == 30
    assert len(images_of(client, status="failed")) == 2
    assert images_of(client, status="damaged") == images_of(client, status="empty") == []
    assert len(images_of(client, script="Digits")) == 30  # "w7" is one
    assert images_of(client, script="Digits", least=0.95) == []
    assert images_of(client, script="Chinese") == []
    assert images_of(client, terms="exit", name="img_7") == ["img_7.jpg"]
    assert images_of(client, terms="exit", script="Digits") == []
    assert images_of(client, terms="w7", script="Digits") == ["img_7.jpg"]
    assert images_of(client, terms="exit", status="empty") == []
    assert images_of(client, name="<img") == [unquoted_evil()]


def unquoted_evil() -> str:
    return f"{EVIL.replace('/', '')}_98.jpg"


def test_hits_are_downloaded_as_csv_and_json_lines(client: TestClient) -> None:
    answer = client.get("/api/hits.csv", params={"terms": "exit", "name": "img_7"})
    assert answer.headers["content-disposition"] == "attachment; filename=hits.csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(r["text"], r["confidence"], r["x_max"], r["words"]) for r in rows] == [
        ("exit", "0.9", "110.0", "0")
    ]
    lines = client.get("/api/hits.jsonl", params={"terms": "exit"}).text.splitlines()
    assert len(lines) == 30 and json.loads(lines[0])["words"] == [0]
    every = client.get("/api/hits.jsonl", params={"name": "img_7", "least": 0.5}).text.splitlines()
    assert [json.loads(line)["text"] for line in every] == ["exit", EVIL]
    assert client.get("/api/hits.jsonl", params={"terms": "nowhere"}).text == ""


def test_hits_that_were_not_looked_at_are_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"terms": "exit", "name": "img_2"}
    assert not client.get("/api/images", params=asked).json()["cut"]
    monkeypatch.setattr(browse_data, "_FILTERED_HITS", 20)
    monkeypatch.setattr(browse_data, "MAX_HITS", 30)
    answer = client.get("/api/images", params={**asked, "least": 0.1}).json()
    assert answer["cut"] and answer["hits"] < 11  # of 30, 20 were looked at
    assert client.get("/api/images", params={"terms": "exit", "least": 0.1}).json()["cut"]


def test_one_image_is_found_by_its_id(client: TestClient) -> None:
    (image,) = client.get("/api/images", params={"name": "img_7"}).json()["images"]
    found = client.get("/api/image", params={"id": image["id"], "terms": "w7"}).json()
    assert [(w["t"], w["hit"]) for w in found["words"]] == [
        ("exit", False),
        ("w7", True),
        (EVIL, False),
    ]
    assert client.get("/api/image", params={"id": "no"}).status_code == 404


def test_tiles_are_the_images_own_pixels(client: TestClient, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (30, 40, 3), np.uint8), (1400, 1100))
    source = tmp_path / "large"
    source.mkdir()
    cv2.imwrite(str(source / "img_1.png"), pixels)
    write_run(str(tmp_path / "large-out"), [str(source)], lambda _: [word("exit")])
    with open_views(str(tmp_path / "large-out")) as tables:
        data = BrowseData(tables)
        (image,) = data.images(Question(), 0, 1)["images"]
        top = top_level(1400, 1100)
        tile = data.tile(image["id"], top, 2, 1)
        assert tile.jpeg is not None
        found = cv2.imdecode(np.frombuffer(tile.jpeg, np.uint8), cv2.IMREAD_COLOR)
        wanted = pixels[512:1024, 1024:1400]
        assert found is not None and found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).mean() < 3
        for place in (
            (top, 3, 0),
            (top, 0, 3),
            (top + 1, 0, 0),
            (-1, 0, 0),
            (top, -1, 0),
            (-(10**20), 0, 0),
        ):
            assert data.tile(image["id"], *place).jpeg is None
        assert data.tile("no", top, 0, 0).jpeg is None
        data.close()


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 12))
def test_the_tiles_of_a_level_make_up_the_whole(width: int, height: int, level: int) -> None:
    image = np.zeros((height, width), np.uint8)
    level = min(level, top_level(width, height))
    shrink = 2 ** (top_level(width, height) - level)
    wide, high = -(-width // shrink), -(-height // shrink)
    columns, rows = -(-wide // TILE_PX), -(-high // TILE_PX)
    first = [cut_tile(image, level, column, 0) for column in range(columns)]
    side = [cut_tile(image, level, 0, row) for row in range(rows)]
    assert sum(tile.shape[1] for tile in first if tile is not None) == wide
    assert sum(tile.shape[0] for tile in side if tile is not None) == high
    assert cut_tile(image, level, columns, 0) is None and cut_tile(image, level, 0, rows) is None


def test_decoded_pictures_are_bounded() -> None:
    kept: Recent[str, np.ndarray] = Recent(250, lambda image: image.nbytes)
    for n in range(4):
        kept.put(str(n), np.zeros((10, 10), np.uint8))
    assert kept.get("0") is None and kept.get("2") is not None and kept.get("3") is not None
    kept.put("huge", np.zeros((100, 100), np.uint8))  # one is kept whatever it takes
    assert kept.get("huge") is not None and kept.get("3") is None


def test_the_original_is_handed_out_as_a_file(client: TestClient, table: str) -> None:
    (image,) = client.get("/api/images", params={"name": "img_7"}).json()["images"]
    answer = client.get("/original", params={"id": image["id"]})
    assert answer.content == (Path(table).parent / "src" / "img_7.jpg").read_bytes()
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''img_7")
    (gone,) = client.get("/api/images", params={"name": "img_3.jpg"}).json()["images"]
    assert client.get("/original", params={"id": gone["id"]}).status_code == 404
    assert client.get("/original", params={"id": "/etc/passwd"}).status_code == 404


def test_only_who_knows_the_token_is_served(client: TestClient) -> None:
    stranger = TestClient(client.app, base_url="http://localhost:8000", follow_redirects=False)
    paths = ["/", "/page.css", "/cards.js", "/api/images", "/picture?id=x", "/api/hits.csv", "/no"]
    for path in paths:
        answer = stranger.get(path)
        assert answer.status_code == 403 and "textspot browse printed" in answer.text
        assert "content-security-policy" in answer.headers
    assert stranger.post("/api/sql", json={"sql": "SELECT 1"}).status_code == 403
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "ä"):
        assert stranger.get("/", params={"token": wrong}).status_code == 403
        cookies = {"cookie": f"textspot-8000={quote(wrong)}"}
        assert stranger.get("/", headers=cookies).status_code == 403
    cookies = {"cookie": f"textspot-9999={TOKEN}"}  # the cookie of another port's page
    assert stranger.get("/", headers=cookies).status_code == 403
    assert stranger.get("/api/errors", params={"token": TOKEN}).status_code == 200  # for scripts
    welcomed = stranger.get("/", params={"token": TOKEN})
    assert welcomed.status_code == 303 and welcomed.headers["location"] == "/"
    cookie = welcomed.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    assert stranger.get("/").status_code == 200


def test_tokens_differ_between_servers(table: str) -> None:
    addresses: list[str] = []

    def stop(address: str) -> None:
        addresses.append(address.rpartition("token=")[2])
        raise KeyboardInterrupt

    with open_views(table) as tables:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                serve(BrowseData(tables), "t", port=0, on_ready=stop)
    assert len(set(addresses)) == 2 and min(map(len, addresses)) >= 32


def test_pictures_are_scaled_and_only_of_the_table(
    client: TestClient, table: str, tmp_path: Path
) -> None:
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
    shutil.copy(Path(table).parent / "src" / "img_7.jpg", secret)
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


def test_every_type_of_the_database_is_shown(client: TestClient) -> None:
    status, answer = run_sql(client, "SELECT * FROM test_all_types()")
    assert status == 200 and len(answer["rows"]) == 3
    row = dict(zip(answer["names"], answer["rows"][1], strict=True))
    assert row["int"] == 2**31 - 1
    assert row["bigint"] == str(2**63 - 1)  # a browser's numbers would lose digits


def test_nothing_of_a_page_holds_markup_of_a_source(make_table: MakeTable) -> None:
    uri = make_table([Page("a.jpg", [word("x")], source=f'file:///"{EVIL}/a.jpg')])
    with open_views(uri) as tables:
        app = make_app(BrowseData(tables), f"t {EVIL}", TOKEN)
        text = TestClient(app, base_url="http://localhost").get("/", params={"token": TOKEN}).text
    assert "&lt;img src=x" in text and "<img" not in text


def test_damage_is_told_on_cards_and_beside_the_errors(make_table: MakeTable) -> None:
    uri = make_table([Page("a.jpg", [word("x")]), Page("b.jpg", [word("y")])])
    with open_views(uri) as tables:
        replace_columns(
            tables, damage=f"CASE WHEN image_id = 'b.jpg' THEN '{EVIL}' END", saturated="true"
        )
        data = BrowseData(tables)
        found = data.images(Question(status="damaged"), 0, 9)
        (image,) = found["images"]
        assert (
            image["id"] == "b.jpg"
            and image["damaged"]
            and f"damaged file: {EVIL}" in image["warnings"]
        )
        assert len(data.images(Question(status="saturated"), 0, 9)["images"]) == 2
        assert data.images(Question(SearchQuery(("x",)), status="damaged"), 0, 9)["total"] == 0
        assert data.errors(0, 9)["damaged"] == [["b.jpg", EVIL]]
        page = render(tables, sample_ids(tables, 9), ViewSettings())
    assert "Damaged images" in page and "&lt;img src=x" in page


def test_a_table_of_errors_alone_opens_on_them(make_table: MakeTable) -> None:
    def opened(*pages: Page, name: str) -> str:
        with open_views(make_table(pages, name=name)) as tables:
            app = make_app(BrowseData(tables), "t", TOKEN)
            client = TestClient(app, base_url="http://localhost")
            page = client.get("/", params={"token": TOKEN}).text
            shown = re.findall(r'id="tab-(\w+)"[^>]*aria-selected="true"', page)
            (view,) = re.findall(
                r'id="tab-(\w+)"[^>]*aria-selected="true"',
                render(tables, sample_ids(tables, 9), ViewSettings()),
            )
        assert shown == [view]
        return view

    failed = Page("b.jpg", error=ErrorKind.CORRUPT)
    assert opened(failed, name="failed") == "errors"
    assert opened(failed, Page("a.jpg", [word("x")]), name="both") == "images"
    assert opened(Page("a.jpg"), name="sound") == "images"


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
    cookie = f"textspot-8000={TOKEN}; textspot={TOKEN}"
    answer = client.get("/api/errors", headers={"host": host, "cookie": cookie})
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
    for port in (99999, -1):
        with open_views(table) as tables, pytest.raises(UsageError, match=f"no port {port}"):
            serve(BrowseData(tables), "t", port=port)


def test_connections_are_taken_from_the_moment_the_address_is_told(table: str) -> None:
    """``--open`` starts a browser at that moment, long before the server runs on a busy machine."""

    def connect(address: str) -> None:
        port = urlsplit(address).port or 0
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        raise KeyboardInterrupt

    with open_views(table) as tables, pytest.raises(KeyboardInterrupt):
        serve(BrowseData(tables), "t", port=0, on_ready=connect)
