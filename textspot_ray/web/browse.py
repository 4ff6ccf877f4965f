"""The live page: search, images with boxes, errors, statistics and read-only SQL on loopback.

For tables that are too large for one file. The server listens on the loopback interface only, and
answers only requests whose Host header names it (so that no web page can reach it by a name of its
own) and that have its token (so that no other user of the machine can). It is read-only.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote

import duckdb
import pyarrow as pa

from textspot_ray.errors import MissingExtraError, TextspotError, UsageError, one_line
from textspot_ray.query.search import Combine, Mode, SearchQuery
from textspot_ray.query.stats import charts
from textspot_ray.query.views import sql_reason
from textspot_ray.web import html
from textspot_ray.web.browse_data import MAX_DOWNLOAD, MAX_ROWS, BrowseData, Question
from textspot_ray.web.html import SHARED, Tab
from textspot_ray.web.image_data import WRITING_SYSTEMS, shown_name
from textspot_ray.web.view import threshold_note
from textspot_ray.wording import number

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import (
        HTMLResponse,
        JSONResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Route
except ImportError as exc:
    raise MissingExtraError("textspot browse", "browse") from exc

_MAX_BODY_BYTES = 100_000
_SCRIPTS = (*SHARED, "browse.js")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CACHED = {"Cache-Control": "private, max-age=600"}
_NO_TOKEN = "open the address that textspot browse printed: it ends in the token of this server\n"


def make_app(data: BrowseData, title: str, token: str) -> Starlette:
    """The web application over an opened table.

    Args:
        data: The table.
        title: Heading of the page.
        token: Requests must have it.
    """
    handlers = _Handlers(data, title)
    app = Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/page.css", handlers.style),
            Route("/favicon.ico", handlers.no_icon),
            *(Route(f"/{name}", functools.partial(handlers.script, name)) for name in _SCRIPTS),
            Route("/api/images", handlers.images),
            Route("/api/image", handlers.image),
            Route("/api/hits.csv", functools.partial(handlers.hits, "csv")),
            Route("/api/hits.jsonl", functools.partial(handlers.hits, "jsonl")),
            Route("/api/errors", handlers.errors),
            Route("/api/reason", handlers.reason),
            Route("/api/sql", handlers.sql, methods=["POST"]),
            Route("/picture", handlers.picture),
            Route("/tile", handlers.tile),
            Route("/original", handlers.original),
        ],
    )
    app.add_middleware(_Guard, token=token)
    return app


def serve(
    data: BrowseData, title: str, *, port: int = 8000, on_ready: Callable[[str], None] = print
) -> None:
    """Serve until interrupted.

    Args:
        data: The table.
        title: Heading of the page.
        port: Where to listen; 0: any free port.
        on_ready: Called with the address, token included, once connections are accepted.

    Raises:
        UsageError: The port is invalid or in use.
    """
    import socket

    import uvicorn

    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}: --port takes 0 (any free one) to 65535")
    token = secrets.token_urlsafe(24)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            raise UsageError(
                f"cannot listen on port {port} ({exc.strerror}): choose another with --port"
            ) from exc
        listener.listen()  # a browser that connects before the server runs waits instead of failing
        on_ready(f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}")
        app = make_app(data, title, token)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


class _Guard:
    """Lets requests pass that name this machine and have the token; adds the policy headers."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1").lower(): v.decode("latin-1") for key, v in scope["headers"]
        }
        refusal = refused(headers, scope["method"])
        if refusal is not None:
            await PlainTextResponse(refusal, 403, _HEADERS)(scope, receive, send)
            return
        name = cookie_name(headers.get("host", ""))
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if any(self._knows(token) for token in given):
            if scope["path"] == "/":  # the token moves from the address bar into a cookie
                answer = RedirectResponse("/", 303, _HEADERS)
                answer.set_cookie(name, self._token, httponly=True, samesite="lax")
                await answer(scope, receive, send)
                return
        elif not self._knows(_cookie(headers, name)):
            await PlainTextResponse(_NO_TOKEN, 403, _HEADERS)(scope, receive, send)
            return

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._app(scope, receive, send_with_policy)

    def _knows(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def refused(headers: Mapping[str, str], method: str) -> str | None:
    """Why a request is refused, or None. Header names are in lower case."""
    if not is_loopback(headers.get("host", "")):
        return "this server answers only to localhost"
    origin = headers.get("origin")
    if origin is not None and not is_loopback(origin.partition("://")[2]):
        return "requests from other sites are refused"
    if method == "POST" and not headers.get("content-type", "").startswith("application/json"):
        return "only JSON is taken"  # forms of other sites cannot send it
    return None


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine: localhost or a loopback address."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def cookie_name(host: str) -> str:
    """Name of the token's cookie: it has the port, as cookies are shared by all ports of a host."""
    port = host.rpartition(":")[2]
    return f"textspot-{port}" if port.isascii() and port.isdigit() else "textspot"


def _cookie(headers: Mapping[str, str], name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


Handler = Callable[[Any, Request], Awaitable[Response]]


def _answers(handler: Handler) -> Handler:
    """Turn errors of a request into JSON with one line."""

    @functools.wraps(handler)
    async def guarded(self: Any, request: Request) -> Response:
        try:
            return await handler(self, request)
        except (TextspotError, ValueError, OverflowError) as exc:
            return JSONResponse({"error": one_line(exc)}, 400)
        except (duckdb.Error, pa.ArrowException) as exc:
            return JSONResponse({"error": sql_reason(exc)}, 400)

    return guarded


class _Handlers:
    def __init__(self, data: BrowseData, title: str) -> None:
        self._data = data
        self._title = title
        self._html: str | None = None
        self._lock = threading.Lock()

    async def page(self, request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(self._make_page))

    async def no_icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def style(self, request: Request) -> Response:
        return Response(html.asset("page.css"), media_type="text/css")

    async def script(self, name: str, request: Request) -> Response:
        return Response(html.asset(name), media_type="text/javascript")

    @_answers
    async def images(self, request: Request) -> Response:
        given = request.query_params
        offset, count = _whole(given, "offset", 0), _whole(given, "count", 24)
        found = await run_in_threadpool(self._data.images, _question(given), offset, count)
        return JSONResponse(found)

    @_answers
    async def image(self, request: Request) -> Response:
        given = request.query_params
        found = await run_in_threadpool(self._data.image, given.get("id", ""), _question(given))
        if found is None:
            return JSONResponse({"error": "the table has no such image"}, 404)
        return JSONResponse(found)

    async def hits(self, kind: str, request: Request) -> Response:
        is_csv = kind == "csv"
        try:
            lines = self._data.hits(_question(request.query_params), as_csv=is_csv)
            first = await run_in_threadpool(next, lines, "")  # errors are raised here
        except (TextspotError, ValueError, duckdb.Error) as exc:
            return JSONResponse({"error": sql_reason(exc)}, 400)
        return StreamingResponse(
            itertools.chain([first], lines),
            media_type="text/csv" if is_csv else "application/x-ndjson",
            headers={"Content-Disposition": f"attachment; filename=hits.{kind}"},
        )

    @_answers
    async def errors(self, request: Request) -> Response:
        given = request.query_params
        offset, count = _whole(given, "offset", 0), _whole(given, "count", 100)
        return JSONResponse(await run_in_threadpool(self._data.errors, offset, count))

    @_answers
    async def reason(self, request: Request) -> Response:
        image_id = request.query_params.get("id", "")
        picture = await run_in_threadpool(self._data.picture, image_id, 64)
        if picture.jpeg is None:
            return JSONResponse({"error": picture.note}, 404)
        return JSONResponse({})

    @_answers
    async def picture(self, request: Request) -> Response:
        given = request.query_params
        longest = min(4096, max(16, _whole(given, "px", 960)))
        picture = await run_in_threadpool(self._data.picture, given.get("id", ""), longest)
        return _jpeg(picture.jpeg, picture.note)

    @_answers
    async def tile(self, request: Request) -> Response:
        given = request.query_params
        place = [_whole(given, name, 0) for name in ("level", "column", "row")]
        tile = await run_in_threadpool(self._data.tile, given.get("id", ""), *place)
        return _jpeg(tile.jpeg, tile.note)

    @_answers
    async def original(self, request: Request) -> Response:
        image_id = request.query_params.get("id", "")
        content, note = await run_in_threadpool(self._data.original, image_id)
        if content is None:
            return PlainTextResponse(note, 404)
        name = quote(shown_name(image_id)[1], safe="")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @_answers
    async def sql(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise UsageError("the statement is too long")
        sent = json.loads(body)
        if not isinstance(sent, dict) or not isinstance(sent.get("sql"), str):
            raise UsageError('expected {"sql": "..."}')
        start = time.perf_counter()
        answer = await run_in_threadpool(self._data.sql, sent["sql"])
        return JSONResponse({**answer, "seconds": time.perf_counter() - start})

    def _make_page(self) -> str:
        with self._lock:  # statistics scan the table: once, at the first call
            if self._html is None:
                stats = self._data.stats()
                totals = stats.figures.totals
                problems = totals.failed + totals.damaged
                nothing_else = totals.images == totals.failed and bool(problems)
                self._html = html.live(
                    "browse.html",
                    scripts=_SCRIPTS,
                    title=self._title,
                    subtitle=(
                        f"{self._data.uri}: {number(totals.images)} images, "
                        f"{number(totals.words)} words"
                    ),
                    note=threshold_note(self._data.tables, stats, self._data.text_threshold),
                    tabs=(
                        Tab("images", "Images", totals.images),
                        Tab("errors", "Errors", problems),
                        Tab("figures", "Figures"),
                        Tab("sql", "SQL"),
                    ),
                    opened="errors" if nothing_else else "images",
                    least=f"{self._data.text_threshold:g}",
                    writing_systems=tuple(WRITING_SYSTEMS),
                    sources=self._data.sources(),
                    stats=stats,
                    charts=charts(stats.figures),
                    max_rows=MAX_ROWS,
                    max_download=MAX_DOWNLOAD,
                )
            return self._html


def _question(given: Mapping[str, str]) -> Question:
    words = SearchQuery(
        terms=tuple(given.get("terms", "").split()),
        mode=Mode(given.get("mode", "exact")),
        combine=Combine(given.get("combine", "phrase")),
        distance=_whole(given, "distance", 1),
        min_confidence=float(given.get("least", "0")),
    )
    return Question(
        words,
        name=given.get("name", "").strip(),
        source=given.get("source", "").strip(),
        status=given.get("status", ""),
        script=given.get("script", ""),
    )


def _whole(given: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(given.get(name, "") or default)
    except ValueError as exc:  # Python's own message repeats the value
        raise UsageError(f"{name} must be a whole number") from exc


def _jpeg(jpeg: bytes | None, note: str) -> Response:
    if jpeg is None:
        return PlainTextResponse(note, 404)
    return Response(jpeg, media_type="image/jpeg", headers=_CACHED)
