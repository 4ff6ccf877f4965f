"""The live page: search, images with boxes, errors, figures and read-only SQL on loopback.

For tables too large for one file. The server answers on the loopback interface alone and only to
requests that name it as host, so that no web page can reach it through a name of its own; it
changes nothing.
"""

from __future__ import annotations

import functools
import ipaddress
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from textspot_ray.errors import MissingExtraError, TextspotError, UsageError
from textspot_ray.web import html as markup
from textspot_ray.web.browse_data import BrowseData

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as exc:
    raise MissingExtraError("textspot browse", "browse") from exc

_MAX_BODY_BYTES = 100_000
_SCRIPTS = ("cards.js", "browse.js")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="page.css">
</head>
<body>
<header><h1>{title}</h1><p class="sub">{subtitle}</p></header>
<nav role="tablist">
<button type="button" role="tab" data-tab="images" aria-selected="true">Images</button>
<button type="button" role="tab" data-tab="errors">Errors ({failed})</button>
<button type="button" role="tab" data-tab="figures">Figures</button>
<button type="button" role="tab" data-tab="sql">SQL</button>
</nav>
<main>
<section id="images">
<form id="search" class="tools">
<label>Search <input id="terms" type="search" placeholder="one or more words" autofocus></label>
<select id="mode" aria-label="how words are compared">
<option value="exact">exactly</option><option value="prefix">starts with</option>
<option value="contains">contains</option><option value="fuzzy">similar</option>
<option value="regex">pattern</option></select>
<label id="distance-label" hidden>edits
<input id="distance" type="number" min="1" max="5" value="1"></label>
<select id="combine" aria-label="what several words mean">
<option value="phrase">as a phrase</option><option value="all">all in one image</option>
<option value="any">any of them</option></select>
<label>Confidence from <input id="least" type="range" min="0" max="1" step="0.01" value="{least}">
<output id="least-value"></output></label>
<button type="submit">Search</button>
</form>
<p id="message" class="message" role="status"></p>
<div id="cards" class="cards"></div>
<div class="pager"><button id="previous" type="button">Previous</button>
<span id="range"></span><button id="next" type="button">Next</button></div>
</section>
<section id="errors" hidden>
<div class="scroll"><table id="error-table"></table></div>
<div class="pager"><button id="error-previous" type="button">Previous</button>
<span id="error-range"></span><button id="error-next" type="button">Next</button></div>
</section>
<section id="figures" hidden>{figures}</section>
<section id="sql" hidden>
<textarea id="statement" aria-label="SQL" spellcheck="false">SELECT text, count(*) AS n
FROM words GROUP BY text ORDER BY n DESC LIMIT 20</textarea>
<div class="pager"><button id="run" type="button">Run (Ctrl+Enter)</button>
<span id="sql-message" class="message" role="status"></span></div>
<div class="scroll"><table id="sql-table"></table></div>
</section>
</main>
{scripts}
</body>
</html>
"""


def make_app(data: BrowseData, title: str) -> Starlette:
    """The web application over an opened table."""
    handlers = _Handlers(data, title)
    app = Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/page.css", handlers.style),
            Route("/favicon.ico", handlers.no_icon),
            *(Route(f"/{name}", functools.partial(handlers.script, name)) for name in _SCRIPTS),
            Route("/api/images", handlers.images),
            Route("/api/errors", handlers.errors),
            Route("/api/reason", handlers.reason),
            Route("/api/sql", handlers.sql, methods=["POST"]),
            Route("/picture", handlers.picture),
        ],
    )
    app.add_middleware(_Guard)
    return app


def serve(
    data: BrowseData, title: str, *, port: int = 8000, on_ready: Callable[[str], None] = print
) -> None:
    """Serve until interrupted.

    Raises:
        UsageError: The port is taken.
    """
    import socket

    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            raise UsageError(
                f"cannot listen on port {port} ({exc.strerror}): choose another with --port"
            ) from exc
        listener.listen()  # a browser that comes before the server runs waits instead of failing
        on_ready(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        config = uvicorn.Config(make_app(data, title), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


class _Guard:
    """Only requests for this machine's own names pass; every answer carries the policy."""

    def __init__(self, app: Any) -> None:
        self._app = app

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

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def refused(headers: Mapping[str, str], method: str) -> str | None:
    """Why a request is turned away, or None. Header names are in lower case."""
    if not is_loopback(headers.get("host", "")):
        return "this server answers only to localhost"
    origin = headers.get("origin")
    if origin is not None and not is_loopback(origin.partition("://")[2]):
        return "requests from other sites are refused"
    if method == "POST" and not headers.get("content-type", "").startswith("application/json"):
        return "only JSON is taken"  # other sites' forms cannot send it
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


Handler = Callable[[Any, Request], Awaitable[Response]]


def _answers(handler: Handler) -> Handler:
    """Our faults become JSON with one line."""

    @functools.wraps(handler)
    async def guarded(self: Any, request: Request) -> Response:
        try:
            return await handler(self, request)
        except (TextspotError, ValueError) as exc:
            return JSONResponse({"error": str(exc)}, 400)

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
        return Response(markup.asset("page.css"), media_type="text/css")

    async def script(self, name: str, request: Request) -> Response:
        return Response(markup.asset(name), media_type="text/javascript")

    @_answers
    async def images(self, request: Request) -> Response:
        given = request.query_params
        return JSONResponse(
            await run_in_threadpool(
                self._data.images,
                terms=given.get("terms", "").split(),
                mode=given.get("mode", "exact"),
                combine=given.get("combine", "phrase"),
                distance=int(given.get("distance", "1") or 1),
                least=float(given.get("least", "0")),
                offset=int(given.get("offset", "0")),
                count=int(given.get("count", "24")),
            )
        )

    @_answers
    async def errors(self, request: Request) -> Response:
        given = request.query_params
        return JSONResponse(
            await run_in_threadpool(
                self._data.errors, int(given.get("offset", "0")), int(given.get("count", "100"))
            )
        )

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
        longest = min(4096, max(16, int(given.get("px", "960"))))
        picture = await run_in_threadpool(self._data.picture, given.get("id", ""), longest)
        if picture.jpeg is None:
            return PlainTextResponse(picture.note, 404)
        headers = {"Cache-Control": "private, max-age=600"}
        return Response(picture.jpeg, media_type="image/jpeg", headers=headers)

    @_answers
    async def sql(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise UsageError("the statement is too long")
        import json

        sent = json.loads(body)
        if not isinstance(sent, dict) or not isinstance(sent.get("sql"), str):
            raise UsageError('expected {"sql": "..."}')
        start = time.perf_counter()
        answer = await run_in_threadpool(self._data.sql, sent["sql"])
        return JSONResponse({**answer, "seconds": time.perf_counter() - start})

    def _make_page(self) -> str:
        with self._lock:  # figures scan the table: once, at the first call
            if self._html is None:
                figures = self._data.figures()
                totals = figures.totals
                self._html = _PAGE.format(
                    title=markup.text(self._title),
                    subtitle=markup.text(
                        f"{self._data.uri}: {totals.images} images, {totals.words} words"
                    ),
                    failed=totals.failed,
                    least=f"{self._data.text_threshold:g}",
                    figures=markup.figures_section(figures),
                    scripts="\n".join(f'<script src="{name}"></script>' for name in _SCRIPTS),
                )
            return self._html
