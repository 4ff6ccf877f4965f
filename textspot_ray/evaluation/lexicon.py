"""Reading with a dictionary: each reading becomes the nearest word of a lexicon, or is dropped.

The organisers hand out lexicons (strong: one a photo, weak: one of the test set, generic: 90,000
words) and leave their use to the entrant. The rule here is the usual one of published results: the
word with the smallest edit distance, ignoring case, earlier lines first; a reading farther than
``max_distance`` from every word is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import duckdb
import pyarrow as pa

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import Predicted, read_texts


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words for every image (``shared``) or for each image by key (``by_image``)."""

    shared: tuple[str, ...] = ()
    by_image: Mapping[str, tuple[str, ...]] | None = None


def read_lexicon(path: str | Path) -> Lexicon:
    """A text file (one word per line) for all images; a folder, tar or zip of one file per image.

    Files of a strong lexicon are joined to images as ground truth is: ``voc_img_7.txt`` -> img_7.

    Raises:
        UsageError: The file cannot be read or holds no words.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".txt":
        try:
            shared = _words(path.read_bytes(), str(path))
        except OSError as exc:
            raise UsageError(f"cannot read lexicon {path}: {exc.strerror}") from exc
        if not shared:
            raise UsageError(f"lexicon {path} holds no words")
        return Lexicon(shared=shared)
    by_image = {
        PurePosixPath(name).stem.removeprefix("voc_"): _words(data, f"{path}: {name}")
        for name, data in read_texts(path)
    }
    if not by_image:
        raise UsageError(f"lexicon {path} holds no *.txt files")
    return Lexicon(by_image=by_image)


def apply_lexicon(
    predictions: Mapping[str, Sequence[Predicted]], lexicon: Lexicon, max_distance: int = 1
) -> dict[str, tuple[Predicted, ...]]:
    """Replace each reading by its lexicon word; readings without one are dropped.

    Args:
        predictions: Readings by image key.
        lexicon: The words.
        max_distance: Maximal edit distance to a word.
    """
    pairs = sorted(
        {
            ("" if lexicon.by_image is None else image, item.text.lower())
            for image, items in predictions.items()
            for item in items
        }
    )
    nearest = _nearest(pairs, lexicon, max_distance)
    fixed: dict[str, tuple[Predicted, ...]] = {}
    for image, items in predictions.items():
        scope = "" if lexicon.by_image is None else image
        words = [(item, nearest.get((scope, item.text.lower()))) for item in items]
        fixed[image] = tuple(
            dataclasses.replace(item, text=word) for item, word in words if word is not None
        )
    return fixed


def _nearest(
    pairs: list[tuple[str, str]], lexicon: Lexicon, max_distance: int
) -> dict[tuple[str, str], str]:
    scopes = {"": lexicon.shared} if lexicon.by_image is None else lexicon.by_image
    entries = [
        (scope, rank, word) for scope, words in scopes.items() for rank, word in enumerate(words)
    ]
    if not pairs or not entries:
        return {}
    with duckdb.connect(":memory:") as connection:
        connection.register("readings", _table(("scope", "text"), pairs))
        connection.register("entries", _table(("scope", "rank", "word"), entries))
        rows = connection.execute(
            """
            SELECT scope, text, arg_min(word, (distance, rank)) FROM (
                SELECT scope, text, word, rank, levenshtein(text, lower(word)) AS distance
                FROM readings JOIN entries USING (scope)
                WHERE abs(len(text) - len(word)) <= $limit
            ) WHERE distance <= $limit GROUP BY scope, text
            """,
            {"limit": max_distance},
        ).fetchall()
    return {(scope, text): word for scope, text, word in rows}


def _table(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> pa.Table:
    return pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))


def _words(data: bytes, where: str) -> tuple[str, ...]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{where} is not UTF-8 (byte {exc.start})") from exc
    return tuple(line.strip() for line in text.split("\n") if line.strip())
