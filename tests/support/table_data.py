"""Made-up items and results, the same for the same seed, for tests of the tables room."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from textspot_ray.records import (
    ErrorKind,
    ImageError,
    ImageResult,
    Item,
    PageInfo,
    Shard,
    ShardId,
    Stage,
    Word,
)
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import CommitRecord, put_commit_record
from textspot_ray.tables.commit.ledger import Ledger, open_ledger
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.open import open_tables

FINGERPRINT = {"precision": "f32", "detection_threshold": "0.5"}
TIMES = ("read_s", "decode_s", "detect_s", "recognise_s", "run_id", "shard")


def make_item(number: int, tag: str | None = "t0", **fields: object) -> Item:
    """Item ``number`` of a made-up archive."""
    values: dict[str, object] = {
        "image_id": f"file:///archive/{number:06d}.jpg",
        "source": f"/archive/{number:06d}.jpg",
        "size": 1000 + number,
        "content_tag": tag,
        **fields,
    }
    return Item(**values)  # type: ignore[arg-type]


def make_items(count: int, start: int = 0) -> list[Item]:
    return [make_item(n) for n in range(start, start + count)]


def make_word(rng: random.Random) -> Word:
    text = "".join(rng.choices("abcdefghij0123", k=rng.randint(1, 9)))
    x, y = rng.uniform(0, 500), rng.uniform(0, 300)
    box = (x, y, x + 40.0, y + 12.0)
    return Word(
        text=text,
        text_confidence=rng.random(),
        char_confidences=tuple(rng.random() for _ in text),
        detection_confidence=rng.uniform(0.5, 1.0),
        box=box,
        polygon=(x, y, x + 40, y, x + 40, y + 12, x, y + 12),
        angle_deg=rng.uniform(-20, 20),
    )


def make_result(item: Item, page: int = 0, pages: int = 1, fail: bool | None = None) -> ImageResult:
    """What a model might say of an item; the same for the same item, page and content tag.

    One in seven fails, one in five has no words, unless ``fail`` decides.
    """
    rng = random.Random(f"{item.image_id}/{page}/{item.content_tag}")
    draw = rng.random()
    failed = draw < 1 / 7 if fail is None else fail
    if failed:
        kind = rng.choice((ErrorKind.CORRUPT, ErrorKind.TIMEOUT))
        return ImageResult(
            item, page, None, error=ImageError(Stage.DECODE, kind, f"broken: {item.image_id}")
        )
    words = () if draw > 0.8 else tuple(make_word(rng) for _ in range(rng.randint(1, 12)))
    info = PageInfo(640, 480, "JPEG", 1, pages=pages)
    return ImageResult(item, page, info, words=words, n_unread=rng.randint(0, 3), read_s=0.01)


def memory_store(name: str) -> Store:
    return open_store(f"memory://{name}", create=True)


def found(store: Store) -> Ledger:
    return open_ledger(store, FINGERPRINT)


def write_shard(
    store: Store,
    ledger: Ledger,
    items: Iterable[Item],
    index: int = 0,
    plan: int = 0,
    fail: bool | None = None,
) -> bool:
    """Write and commit one shard of generation 0."""
    shard = Shard(ShardId(plan, index), tuple(items))
    with ShardWriter(store, shard, run_id="r1", fingerprint=ledger.digest) as writer:
        for item in shard.items:
            writer.add(make_result(item, fail=fail))
        record = writer.commit()
    return record is not None and ledger.note(record)


def commit(ledger: Ledger, record: CommitRecord) -> bool:
    """Put a record and take note of it; whether it counts."""
    return put_commit_record(ledger.store, record) and ledger.note(record)


def table_rows(
    store: Store, options: Mapping[str, Any] | None = None
) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables as readers see them, without timings, in a canonical order."""
    tables = open_tables(store, options)
    rows: dict[str, list[tuple[object, ...]]] = {}
    for name in ("words", "images", "errors"):
        table = tables.read(name)
        table = table.select([c for c in table.column_names if c not in TIMES])
        rows[name] = sorted(_tuples(table.to_pylist()), key=repr)
    return rows


def _tuples(rows: list[dict[str, object]]) -> Iterator[tuple[object, ...]]:
    for row in rows:
        yield tuple(tuple(v) if isinstance(v, list) else v for v in row.values())
