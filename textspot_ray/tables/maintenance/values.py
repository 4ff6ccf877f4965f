"""Checks of the values in rows, for `verify --deep`, which reads all of them.

Each function yields pairs of a message and a mask of the rows it applies to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.records import ErrorKind, Stage, Status
from textspot_ray.tables.schema import conform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

# Confidences are float32 products and means of softmax values: slightly above 1 is no damage.
_ABOVE_ONE = 1e-5
_OUTSIDE_PX = 1.0  # boxes are rounded to float32, sizes are whole
_NULLS_ALLOWED = {
    "words": {"line_index"},
    "images": {
        *("member", "width", "height", "format", "bytes", "content_tag", "exif_orientation"),
        *("tiles", "extra", "run_id", "shard", "damage", "content_sha256"),
    },
    "errors": set(),
    "words_by_text": set(),
}


def word_faults(rows: pa.Table, width: NDArray[Any], height: NDArray[Any]) -> Iterator[Any]:
    """Rows of ``words`` or ``words_by_text``.

    Args:
        rows: All columns, of this version.
        width: Of each row's image, pixels; -1 where it is not known.
        height: Likewise.
    """
    yield "has an empty text", _mask(pc.equal(pc.utf8_length(rows["text"]), 0))
    bare = rows.select([n for n in rows.column_names if n != "text_key"])
    keys = conform(bare, "words", ["text_key"])["text_key"]
    yield "has a text_key that is not its text's", _mask(pc.not_equal(rows["text_key"], keys))
    x0, y0, x1, y1 = (_floats(rows[name]) for name in ("x_min", "y_min", "x_max", "y_max"))
    angle = _floats(rows["angle_deg"])
    finite = np.isfinite(np.stack([x0, y0, x1, y1, angle])).all(axis=0)
    yield "has a box or an angle that is not finite", ~finite
    yield "has an angle beyond 180 degrees", finite & (np.abs(angle) > 180)
    yield "has a box whose end is before its start", finite & ((x0 > x1) | (y0 > y1))
    low = np.minimum(x0, y0) < -_OUTSIDE_PX
    outside = low | (x1 > width + _OUTSIDE_PX) | (y1 > height + _OUTSIDE_PX)
    yield "has a box outside its image", finite & (width >= 0) & outside
    yield (
        "has a text_confidence that is not within 0 and 1",
        _not_share(_floats(rows["text_confidence"])),
    )
    yield "has a negative word_index", _mask(pc.less(rows["word_index"], 0))
    if "polygon" not in rows.column_names:
        return
    found = _floats(rows["detection_confidence"])
    yield "has a detection_confidence that is not within 0 and 1", _not_share(found)
    yield "has a negative line_index", _mask(pc.less(rows["line_index"], 0))
    points = rows["polygon"].combine_chunks()
    yield "has a polygon without four corners", _mask(pc.not_equal(pc.list_value_length(points), 8))
    yield "has a polygon that is not finite", _any_of(points, lambda v: ~np.isfinite(v))
    letters = rows["char_confidences"].combine_chunks()
    yield "has a char_confidence that is not within 0 and 1", _any_of(letters, _not_share)


def image_faults(rows: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Rows of ``images``, all columns."""
    yield "has an unknown status", ~_one_of(rows["status"], [str(s) for s in Status])
    for name in ("page", "n_words", "n_unread", "bytes"):
        yield f"has a negative {name}", _mask(pc.less(rows[name], 0))
    opened = _mask(pc.not_equal(rows["status"], str(Status.FAILED)))
    sized = _mask(pc.and_(pc.greater(rows["width"], 0), pc.greater(rows["height"], 0)))
    named = _mask(pc.is_valid(rows["format"]))
    yield "was opened but has no size or format", opened & ~(sized & named)
    for name in ("read_s", "decode_s", "detect_s", "recognise_s"):
        seconds = _floats(rows[name])
        yield f"has a {name} that is no time", ~(np.isfinite(seconds) & (seconds >= 0))
    yield "has a content_sha256 that is none", _no_match(rows["content_sha256"], "^[0-9a-f]{64}$")
    yield "has a shard that is none", _no_match(rows["shard"], r"^\d{6,}-\d{6,}$")
    yield "has an extra that is no JSON object", _no_object(rows["extra"])


def error_faults(rows: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Rows of ``errors``, all columns."""
    yield "has an unknown stage", ~_one_of(rows["stage"], [str(s) for s in Stage])
    yield "has an unknown kind", ~_one_of(rows["kind"], [str(k) for k in ErrorKind])
    yield "was not tried once", _mask(pc.less(rows["attempts"], 1))


def null_faults(rows: pa.Table, table: str) -> Iterator[tuple[str, Mask]]:
    """Nulls in columns that must have values, of any table."""
    for name in rows.column_names:
        if name not in _NULLS_ALLOWED[table] and rows[name].null_count:
            yield f"has no {name}", _mask(pc.is_null(rows[name]))


def out_of_order(rows: pa.Table, last: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    """Whether rows of ``words_by_text`` break its order, and their last key and text."""
    keys, texts = rows["text_key"].combine_chunks(), rows["text"].combine_chunks()
    if not len(keys):
        return False, last
    first = (keys[0].as_py(), texts[0].as_py())
    before, after = keys[:-1], keys[1:]
    falls = pc.or_(
        pc.greater(before, after),
        pc.and_(pc.equal(before, after), pc.greater(texts[:-1], texts[1:])),
    )
    broken = _bytes(first) < _bytes(last) or bool(pc.any(falls).as_py())
    return broken, (keys[-1].as_py(), texts[-1].as_py())


def _bytes(pair: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in pair)


def _mask(found: pa.Array | pa.ChunkedArray) -> Mask:
    """Booleans; null is false."""
    filled = pc.fill_null(found, False)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=bool)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Numbers; null is 0, because `null_faults` reports it."""
    return np.asarray(pc.fill_null(column, 0).to_numpy())


def _not_share(values: NDArray[np.float32]) -> Mask:
    return ~((values >= 0) & (values <= 1 + _ABOVE_ONE))  # NaN is neither


def _any_of(lists: pa.ListArray, wrong: Any) -> Mask:
    """Lists with a wrong value."""
    found = np.zeros(len(lists), dtype=bool)
    values = _floats(pc.list_flatten(lists))
    parents = pc.list_parent_indices(lists).to_numpy()
    found[parents[wrong(values)]] = True
    return found


def _one_of(column: pa.ChunkedArray, names: list[str]) -> Mask:
    return _mask(pc.is_in(column, pa.array(names, pa.string())))


def _no_match(column: pa.ChunkedArray, pattern: str) -> Mask:
    return _mask(pc.invert(pc.match_substring_regex(column, pattern)))


def _no_object(column: pa.ChunkedArray) -> Mask:
    def is_object(text: str) -> bool:
        try:
            return isinstance(json.loads(text), dict)
        except ValueError:
            return False

    bad = [
        text for text in pc.unique(column).to_pylist() if text is not None and not is_object(text)
    ]
    return _one_of(column, bad)
