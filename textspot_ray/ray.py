"""Spotting inside other people's pipelines: a class for Ray Data, a function for ``datasets``.

    ds = ray.data.read_images("photos/", include_paths=True)
    ds.map_batches(textspot_ray.ray.Spotter, concurrency=1, batch_size=16)

Each actor occupies a CPU: use fewer actors than CPUs, or none is left for reading.

Nothing here imports ray: the class also works without it. A killed Ray Data pipeline does not have
the guarantees of ``textspot run``: see the documentation's page on pipelines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from textspot_ray.api import SpotResult, spot
from textspot_ray.errors import UsageError

_COLUMNS = ("image", "bytes", "path", "uri", "item")


class Spotter:
    """Adds words to batches of images; models are loaded once per actor.

    Args:
        column: Of the images: pixels (RGB, as Ray Data and PIL have them), encoded bytes, paths or
            URIs; None = the first of image, bytes, path, uri, item that a batch has.
        colours: Order of the channels of pixels.
        options: As of `textspot_ray.read`: ``model``, ``precision``, ``min_confidence`` ...

    Raises:
        ConfigError, BundleError: As `textspot_ray.read`, at the first batch.
    """

    def __init__(self, column: str | None = None, colours: str = "rgb", **options: Any) -> None:
        self._column = column
        self._colours = colours
        self._options = options

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with three more columns.

        Args:
            batch: Columns by name, all of one length.

        Returns:
            The same columns and ``text`` (reading order; a form feed between pages), ``words`` (a
            JSON list per image: text, confidence, box, polygon, line, page) and ``error`` (empty
            if the image was read; a file that is not there does not end the pipeline).

        Raises:
            UsageError: No column holds images.
        """
        images = [_plain(image) for image in batch[self._found(batch)]]
        files = list(_by_file(spot(images, colours=self._colours, **self._options)))
        words = [json.dumps(_words(pages), ensure_ascii=False) for pages in files]
        return {
            **batch,
            "text": np.array([_text(pages) for pages in files], dtype=object),
            "words": np.array(words, dtype=object),
            "error": np.array([_error(pages) or "" for pages in files], dtype=object),
        }

    def _found(self, batch: Mapping[str, Any]) -> str:
        wanted = _COLUMNS if self._column is None else (self._column,)
        for name in wanted:
            if name in batch:
                return name
        raise UsageError(f"no column {' or '.join(wanted)} among {', '.join(batch)}: name it")


def add_words(example: dict[str, Any], column: str = "image", **options: Any) -> dict[str, Any]:
    """For ``datasets.Dataset.map``: one example with its text and words.

    Args:
        example: A row whose ``column`` is a PIL image, a path, or a dict with bytes.
        column: Of the image.
        options: As of `textspot_ray.read`.

    Returns:
        ``text``, ``words`` (a list of dicts) and ``error`` (empty if it was read).

    Raises:
        UsageError: There is no such column, or its value is not an image.
    """
    if column not in example:
        raise UsageError(f"no column {column} among {', '.join(example)}: name it with column=")
    image = example[column]
    if isinstance(image, Mapping):  # an undecoded Image feature
        image = image.get("bytes") or image.get("path")
    pages = list(spot([image], **options))
    return {"text": _text(pages), "words": _words(pages), "error": _error(pages) or ""}


def _plain(image: Any) -> Any:
    """A value of a NumPy column as a plain Python value."""
    if isinstance(image, np.ndarray) and image.ndim == 0:
        return image.item()
    return str(image) if isinstance(image, str) else image


def _by_file(results: Iterable[SpotResult]) -> Iterator[list[SpotResult]]:
    """The pages of each file together."""
    pages: list[SpotResult] = []
    for result in results:
        if result.page == 0 and pages:
            yield pages
            pages = []
        pages.append(result)
    if pages:
        yield pages


def _text(pages: Iterable[SpotResult]) -> str:
    return "\f".join(result.text for result in pages)


def _words(pages: Iterable[SpotResult]) -> list[dict[str, Any]]:
    return [{**word, "page": page.page} for page in pages for word in page.to_dict()["words"]]


def _error(pages: Iterable[SpotResult]) -> str | None:
    return next((page.error for page in pages if page.error is not None), None)
