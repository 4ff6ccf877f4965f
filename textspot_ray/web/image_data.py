"""An image as data for the pages' scripts: names, words in reading order, warnings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from textspot_ray.export.layout import page_lines
from textspot_ray.query.pages import Page
from textspot_ray.query.pictures import Picture
from textspot_ray.web.html import jpeg_uri
from textspot_ray.wording import counted

# RE2 classes that the filter by script looks for in a word
WRITING_SYSTEMS: Mapping[str, str] = {
    "Latin": r"\p{Latin}",
    "Digits": r"\p{Nd}",
    "Arabic": r"\p{Arabic}",
    "Chinese": r"\p{Han}",
    "Cyrillic": r"\p{Cyrillic}",
    "Devanagari": r"\p{Devanagari}",
    "Greek": r"\p{Greek}",
    "Hebrew": r"\p{Hebrew}",
    "Japanese": r"[\p{Hiragana}\p{Katakana}]",
    "Korean": r"\p{Hangul}",
    "Thai": r"\p{Thai}",
}
_OPENED_BY_BROWSERS = ("file", "http", "https")


def image_data(
    page: Page, *, marked: Collection[int] = (), picture: Picture | None = None
) -> dict[str, Any]:
    """An image as data for the pages' scripts.

    Args:
        page: The image and its words.
        marked: Indexes of the words that are hits.
        picture: Its scaled picture, for standalone pages; None if the server delivers it.
    """
    return {
        **described(page, picture),
        "status": page.status,
        "warnings": _warnings(page),
        "damaged": bool(page.damage),
        "saturated": page.saturated,
        "words": words_data(page, marked),
    }


def described(page: Page, picture: Picture | None) -> dict[str, Any]:
    """The data of an image that every kind of card has, without the words."""
    folder, name = shown_name(page.image_id)
    return {
        "id": page.image_id,
        "name": name,
        "folder": folder,
        "w": page.width or 0,
        "h": page.height or 0,
        "src": jpeg_uri(picture.jpeg) if picture is not None and picture.jpeg else None,
        "note": picture.note if picture is not None else "",
        "meta": f"{page.width} × {page.height}" if page.width else page.status,
        "original": original_link(page),
    }


def shown_name(image_id: str) -> tuple[str, str]:
    """Folder and file name of an image, decoded.

    >>> shown_name("file:///in/scans.tar#2024/caf%C3%A9.jpg")
    ('/in/scans.tar#2024', 'café.jpg')
    """
    folder, slash, name = unquote(image_id).removeprefix("file://").rpartition("/")
    if not name:
        folder, slash, name = "", "", folder or slash
    return folder, name


def original_link(page: Page) -> str | None:
    """The image's address for a browser; None inside archives and in object stores."""
    if page.member is not None or urlsplit(page.source).scheme not in _OPENED_BY_BROWSERS:
        return None
    return page.source


def words_data(page: Page, marked: Collection[int] = ()) -> list[dict[str, Any]]:
    """An image's words in reading order, with the number of the line each is on."""
    return [
        {
            "i": word.word_index,
            "t": word.text,
            "c": round(word.text_confidence, 4),
            "p": [round(value, 1) for value in word.polygon],
            "l": line,
            "hit": word.word_index in marked,
        }
        for line, words in enumerate(page_lines(page))
        for word in words
    ]


def _warnings(page: Page) -> list[str]:
    found = []
    if page.damage:
        found.append(f"damaged file: {page.damage}")
    if page.saturated:
        found.append("met the box limit: there may be more words")
    if page.n_unread:
        found.append(f"{counted(page.n_unread, 'box', 'boxes')} without text")
    return found
