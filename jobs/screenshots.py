"""Make the README's pictures: the live page with a search, and the static page.

    python jobs/screenshots.py demo-out docs --search st --mode prefix

Needs the extra [browse], Chromium, and Playwright (``pip install playwright``).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from queue import SimpleQueue

from textspot_ray.errors import ExitCode, TextspotError
from textspot_ray.query.views import open_views

SIZE = {"width": 1200, "height": 720}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="output folder of a run")
    parser.add_argument("out", type=Path, help="folder for browse.png and view.png")
    parser.add_argument("--search", default="", help="what the live page searches for")
    parser.add_argument("--mode", default="fuzzy", help="how: exact, prefix, contains, fuzzy")
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("screenshots: pip install playwright", file=sys.stderr)
        return ExitCode.USAGE
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("screenshots: install Chromium (apt-get install chromium)", file=sys.stderr)
        return ExitCode.USAGE
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(viewport=SIZE)
            context.set_default_timeout(300_000)  # a busy machine is no fault of the page
            live(context.new_page(), args.table, (args.mode, args.search), args.out / "browse.png")
            static(context.new_page(), args.table, Path(folder), args.out / "view.png")
            browser.close()
    except TextspotError as exc:
        print(f"screenshots: {exc}", file=sys.stderr)
        return exc.exit_code
    return ExitCode.OK


def live(page, table: str, search: tuple[str, str], out: Path) -> None:
    from textspot_ray.web.browse import serve
    from textspot_ray.web.browse_data import BrowseData

    ready: SimpleQueue[str] = SimpleQueue()
    with open_views(table) as tables:
        data = BrowseData(tables)
        threading.Thread(
            target=serve,
            args=(data, "textspot-ray"),
            kwargs={"port": 0, "on_ready": ready.put},
            daemon=True,
        ).start()
        page.goto(ready.get(timeout=60))
        page.wait_for_selector(".card")
        mode, terms = search
        if terms:
            page.select_option("#mode", mode)
            page.fill("#terms", terms)
            page.press("#terms", "Enter")
            page.wait_for_selector("polygon.hit", state="attached")
        page.wait_for_load_state("networkidle")
        if terms:
            page.hover("polygon.hit >> nth=0", force=True)
        page.screenshot(path=out)


def static(page, table: str, folder: Path, out: Path) -> None:
    from textspot_ray.web.view import ViewSettings, render, sample_ids, write_page

    with open_views(table) as tables:
        html = render(tables, sample_ids(tables, 12), ViewSettings(title="textspot-ray"))
    page.goto(write_page(html, str(folder / "view.html")).as_uri())
    page.wait_for_selector(".card img")
    page.screenshot(path=out)


if __name__ == "__main__":
    sys.exit(main())
