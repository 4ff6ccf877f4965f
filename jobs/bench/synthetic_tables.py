"""Tables of made-up words, large ones in minutes: to measure look-ups, exports and compaction.

Words are drawn from a vocabulary by Zipf's law, a tenth are codes that hardly repeat; they stand on
lines, so that phrases are found. Files and records are what a run commits; there is no plan, as
there are no images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from textspot_ray.errors import UsageError
from textspot_ray.records import TIMED_STAGES, Counts, ErrorKind, ShardId, Stage, Status
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import (
    CommitRecord,
    DataFile,
    data_file_path,
    new_attempt,
    put_commit_record,
)
from textspot_ray.tables.commit.data_files import DataFileWriter
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.schema import SCHEMAS, TABLES

FINGERPRINT = {"made_up": "1"}
IMAGES_PER_SHARD = 2048
_IMAGES_PER_ARCHIVE = 10_000
_VOCABULARY = 200_000
_ZIPF = 1.1
_CODES = 0.1  # share of the words
_FAILED = 0.002  # share of the images
_WIDTH, _HEIGHT = 1920, 1080
_WORDS_PER_LINE = 4
_RUN_ID = "made-up"
_LINE_PX, _WORD_PX, _LETTER_PX, _SPACE_PX = 36, 24, 14, 12
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789"))
_SYLLABLES = re.findall(
    "..",
    "babebibocacecodadedidoeneresfafifogagohahehiiniskakelalelilo"
    "mamemimonanenionorpapepiporarerirosasesisosttatetitounusvavi",
)


@dataclass(frozen=True, slots=True)
class SyntheticReport:
    """What was written."""

    images: int
    words: int
    shards: int
    seconds: float


def write_synthetic(
    uri: str,
    images: int = 1_000_000,
    words: int = 10_000_000,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> SyntheticReport:
    """Write a table.

    Args:
        uri: An empty output folder.
        images: How many images.
        words: How many words, nearly: every image has a Poisson number of them.
        seed: The same seed gives the same rows.
        on_progress: Told the number of images after each shard.

    Raises:
        UsageError: The folder holds a table already.
    """
    start = time.perf_counter()
    store = open_store(uri, create=True)
    ledger = open_ledger(store, FINGERPRINT)
    if len(ledger.settled()):
        raise UsageError(f"{uri} holds a table already: give an empty folder")
    vocabulary = make_vocabulary(seed)
    weights = 1 / np.arange(1, len(vocabulary) + 1) ** _ZIPF
    cumulative = np.cumsum(weights / weights.sum())
    total = shards = 0
    for first in range(0, images, IMAGES_PER_SHARD):
        count = min(IMAGES_PER_SHARD, images - first)
        rng = np.random.default_rng((seed, shards))
        shard = ShardId(0, shards)
        tables = _shard_rows(rng, shard, first, count, words / images, vocabulary, cumulative)
        total += _commit(store, ledger.digest, shard, tables)
        shards += 1
        if on_progress is not None:
            on_progress(first + count)
    ledger.refresh()
    ledger.fold(1)
    return SyntheticReport(images, total, shards, time.perf_counter() - start)


def make_vocabulary(seed: int = 0, size: int = _VOCABULARY) -> NDArray[np.str_]:
    """Distinct pronounceable words, commonest (and shortest) first."""
    rng = np.random.default_rng((seed, 1 << 30))
    found: dict[str, None] = {}
    while len(found) < size:
        lengths = 1 + rng.poisson(1.6, size)
        picks = rng.integers(0, len(_SYLLABLES), (size, 8))
        for length, row in zip(lengths, picks, strict=True):
            found["".join(_SYLLABLES[n] for n in row[: min(length, 8)])] = None
            if len(found) == size:
                break
    return np.array(sorted(found, key=len))


def _shard_rows(
    rng: np.random.Generator,
    shard: ShardId,
    first: int,
    count: int,
    mean_words: float,
    vocabulary: NDArray[np.str_],
    cumulative: NDArray[np.float64],
) -> dict[str, pa.Table]:
    numbers = np.arange(first, first + count)
    archives = [f"s3://archive/photos-{n // _IMAGES_PER_ARCHIVE:05d}.tar" for n in numbers]
    members = [f"photos/img_{n:08d}.jpg" for n in numbers]
    ids = np.array([f"{a}#{m}" for a, m in zip(archives, members, strict=True)])
    failed = rng.random(count) < _FAILED
    n_words = np.where(failed, 0, rng.poisson(mean_words, count)).astype(np.int32)
    status = np.where(failed, Status.FAILED, np.where(n_words > 0, Status.WORDS, Status.EMPTY))
    seconds = {
        f"{stage}_s": rng.gamma(4, mean / 4, count).astype(np.float32)
        for stage, mean in (("read", 0.01), ("decode", 0.02), ("detect", 0.05), ("recognise", 0.04))
    }
    images = {
        "image_id": ids,
        "source": archives,
        "member": members,
        "page": np.zeros(count, np.int32),
        "width": pa.array(np.full(count, _WIDTH, np.int32), mask=failed),
        "height": pa.array(np.full(count, _HEIGHT, np.int32), mask=failed),
        "format": pa.array(np.full(count, "jpeg"), mask=failed),
        "bytes": rng.integers(100_000, 900_000, count),
        "content_tag": [f"{tag:08x}" for tag in rng.integers(0, 1 << 32, count)],
        "exif_orientation": pa.array(np.ones(count, np.int16), mask=failed),
        "tiles": pa.array(np.ones(count, np.int32), mask=failed),
        "n_words": n_words,
        "n_unread": rng.poisson(0.2, count).astype(np.int32),
        "saturated": n_words >= 100,
        "status": status.astype(str),
        **seconds,
        "extra": pa.nulls(count, pa.string()),
        "run_id": [_RUN_ID] * count,
        "shard": [str(shard)] * count,
        "damage": pa.nulls(count, pa.string()),
        "content_sha256": [sha256(name.encode()).hexdigest() for name in ids],
    }
    errors = {
        "image_id": ids[failed],
        "stage": [str(Stage.DECODE)] * int(failed.sum()),
        "kind": [str(ErrorKind.TRUNCATED)] * int(failed.sum()),
        "message": ["cut off jpeg file"] * int(failed.sum()),
        "attempts": np.ones(int(failed.sum()), np.int32),
    }
    words = _word_rows(rng, ids, n_words, vocabulary, cumulative)
    columns = {"images": images, "words": words, "errors": errors}
    return {table: _table(table, columns[table]) for table in TABLES}


def _word_rows(
    rng: np.random.Generator,
    ids: NDArray[np.str_],
    n_words: NDArray[np.int32],
    vocabulary: NDArray[np.str_],
    cumulative: NDArray[np.float64],
) -> dict[str, object]:
    total = int(n_words.sum())
    index = np.arange(total) - np.repeat(np.cumsum(n_words) - n_words, n_words)
    text = vocabulary[np.searchsorted(cumulative, rng.random(total), side="right")]
    codes = rng.random(total) < _CODES
    letters = _LETTERS[rng.integers(0, len(_LETTERS), (int(codes.sum()), 7))]
    text = text.astype("U16")
    text[codes] = ["".join(row) for row in letters]
    lengths = np.char.str_len(text)
    confidence = rng.beta(6, 1.3, total).astype(np.float32)
    column, line = index % _WORDS_PER_LINE, index // _WORDS_PER_LINE
    width = _LETTER_PX * lengths
    ends = np.cumsum(width + _SPACE_PX)
    begins = ends - width - _SPACE_PX
    x = 40 + begins - begins[np.arange(total) - column]  # from the line's first word
    y = 40 + (line * _LINE_PX) % (_HEIGHT - 80)
    sides = (x, y, x + width, y + _WORD_PX)
    x0, y0, x1, y1 = (side.astype(np.float32) for side in sides)
    polygon = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1)
    letter = np.repeat(confidence ** (1 / np.maximum(lengths, 1)), lengths).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return {
        "image_id": np.repeat(ids, n_words),
        "word_index": index.astype(np.int32),
        "line_index": line.astype(np.int32),
        "text_key": text,  # small letters and digits: the key is the text
        "text": text,
        "text_confidence": confidence,
        "char_confidences": pa.ListArray.from_arrays(offsets, letter),
        "detection_confidence": rng.beta(8, 1.2, total).astype(np.float32),
        "x_min": x0,
        "y_min": y0,
        "x_max": x1,
        "y_max": y1,
        "polygon": pa.ListArray.from_arrays(
            np.arange(0, 8 * total + 1, 8).astype(np.int32), polygon
        ),
        "angle_deg": np.zeros(total, np.float32),
    }


def _table(name: str, columns: dict[str, object]) -> pa.Table:
    schema = SCHEMAS[name]
    return pa.Table.from_arrays(
        [
            value.cast(field.type)
            if isinstance(value := columns[field.name], pa.Array)
            else pa.array(value, type=field.type)
            for field in schema
        ],
        schema=schema,
    )


def _commit(store: Store, digest: str, shard: ShardId, tables: dict[str, pa.Table]) -> int:
    attempt = new_attempt()
    parts: list[DataFile] = []
    for table in TABLES:
        writer = DataFileWriter(store, table, data_file_path(table, shard, 0, attempt))
        writer.write(tables[table])
        part = writer.finish()
        if part is not None:
            parts.append(part)
    images, words = tables["images"], tables["words"].num_rows
    failed = tables["errors"].num_rows
    with_words = int(np.count_nonzero(images.column("n_words").to_numpy()))
    counts = Counts(
        items=images.num_rows,
        images=images.num_rows,
        with_words=with_words,
        empty=images.num_rows - with_words - failed,
        failed=failed,
        words=words,
        failures={str(ErrorKind.TRUNCATED): failed} if failed else {},
    )
    # as if one after another, a minute each
    begun = 1_700_000_000.0 + 60 * shard.index
    record = CommitRecord(
        shard=shard,
        generation=0,
        attempt=attempt,
        run_id=_RUN_ID,
        reason="run",
        fingerprint=digest,
        counts=counts,
        files=tuple(parts),
        environment={"node": "none"},
        started_at=begun,
        finished_at=begun + 60,
        stage_s={
            stage: float(np.sum(images.column(f"{stage}_s").to_numpy())) for stage in TIMED_STAGES
        },
    )
    put_commit_record(store, record)
    return int(words)
