"""Make the pictures of README and docs: the live page with a search, one image in full, figures.

    python jobs/screenshots.py demo-out docs --search st --mode prefix

Each is at most 300 kB. Needs the extras [browse] and [browser-test], and Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from queue import SimpleQueue

from PIL import Image

from textspot_ray.errors import ExitCode, TextspotError
from textspot_ray.query.views import open_views

SIZE = {"width": 1200, "height": 720}
MAX_BYTES = 300_000
TIMEOUT_MS = 300_000  # a busy machine is no fault of the page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="output folder of a run")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--search", default="", help="what the live page searches for")
    parser.add_argument("--mode", default="fuzzy", help="how: exact, prefix, contains, fuzzy")
    parser.add_argument("--dark", action="store_true", help="the dark colours")
    parser.add_argument(
        "--shrink", nargs="*", type=Path, default=[], metavar="PNG", help="bring these below, too"
    )
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("screenshots: pip install 'textspot-ray[browser-test]'", file=sys.stderr)
        return ExitCode.USAGE
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("screenshots: install Chromium (apt-get install chromium)", file=sys.stderr)
        return ExitCode.USAGE
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(
                viewport=SIZE, color_scheme="dark" if args.dark else "light"
            )
            context.set_default_timeout(TIMEOUT_MS)
            live(context.new_page(), args.table, (args.mode, args.search), args.out)
            static(context.new_page(), args.table, Path(folder), args.out / "view.png")
            browser.close()
        for path in args.shrink:
            save(path.read_bytes(), path)
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
        save(page.screenshot(), out / "browse.png")
        page.locator("button.picture").first.click()
        page.wait_for_selector("dialog[open]")
        page.keyboard.press("0")
        page.keyboard.press("n")
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2500)  # the zoom's animation, and what was said
        save(page.screenshot(), out / "zoom.png")
        page.keyboard.press("Escape")
        page.click("role=tab[name=Figures]")
        save(page.screenshot(), out / "figures.png")


def static(page, table: str, folder: Path, out: Path) -> None:
    from textspot_ray.web.view import ViewSettings, render, sample_ids, write_page

    with open_views(table) as tables:
        html = render(tables, sample_ids(tables, 12), ViewSettings(title="textspot-ray"))
    page.goto(write_page(html, str(folder / "view.html")).as_uri())
    page.wait_for_selector(".card img")
    save(page.screenshot(), out)


def save(png: bytes, path: Path) -> None:
    """Write a PNG with as many colours as the limit leaves it; smaller if 16 are too many."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    while True:
        for colours in (256, 128, 64, 32, 16):
            packed = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG).save(
                packed, "PNG", optimize=True
            )
            if packed.tell() <= MAX_BYTES:
                path.write_bytes(packed.getvalue())
                print(f"{path}: {packed.tell() / 1000:.0f} kB, {colours} colours")
                return
        image = image.resize(
            (image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS
        )


if __name__ == "__main__":
    sys.exit(main())
