from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from textspot_ray.config import ImageConfig, OutputConfig, SourceConfig
from textspot_ray.images.decode import decode
from textspot_ray.query.views import TableViews
from textspot_ray.records import (
    Encoded,
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
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan

FINGERPRINT = {"precision": "f32", "detector": "0123abcd"}


def word(
    text: str,
    x: float = 10,
    y: float = 10,
    width: float = 40,
    height: float = 16,
    confidence: float = 0.9,
    angle_deg: float = 0.0,
) -> Word:
    box = (x, y, x + width, y + height)
    polygon = (x, y, x + width, y, x + width, y + height, x, y + height)
    return Word(text, confidence, (confidence,) * len(text), 0.8, box, polygon, angle_deg)


@dataclass
class Page:
    """An image of a test table: its words, or why it failed."""

    name: str
    words: Sequence[Word] = ()
    error: ErrorKind | None = None
    size: tuple[int, int] = (640, 480)
    source: str | None = None
    pages: int = 1
    page: int = 0
    message: str = "cannot decode"
    seconds: tuple[float, float, float, float] = field(default=(0.01, 0.02, 0.3, 0.05))


def result_of(page: Page, item: Item) -> ImageResult:
    info = PageInfo(page.size[0], page.size[1], "jpeg", 1, pages=page.pages)
    error = None
    if page.error is not None:
        error = ImageError(Stage.DECODE, page.error, page.message)
    read, decode, detect, recognise = page.seconds
    return ImageResult(
        item,
        page.page,
        None if error else info,
        () if error else tuple(page.words),
        error=error,
        read_s=read,
        decode_s=decode,
        detect_s=detect,
        recognise_s=recognise,
    )


def write_shard(store: Store, pages: Sequence[Page], index: int = 0, run_id: str = "run-1") -> None:
    ledger = open_ledger(store, FINGERPRINT)
    items = {
        page.name: Item(page.name, page.source or f"file:///archive/{page.name}", size=1000)
        for page in pages
    }
    shard = Shard(ShardId(0, index), tuple(items.values()))
    with ShardWriter(
        store, shard, run_id=run_id, fingerprint=ledger.digest, environment={"node": "n1"}
    ) as writer:
        for page in pages:
            writer.add(result_of(page, items[page.name]))
        assert writer.commit() is not None


def replace_columns(tables: TableViews, **columns: str) -> None:
    """Give the view ``images`` of an opened table other values, by SQL over its columns."""
    kept = [name for name in tables.cursor().table("images").columns if name not in columns]
    made = [f"{sql} AS {name}" for name, sql in columns.items()]
    tables.execute("CREATE TABLE kept_images AS SELECT * FROM images")
    tables.execute(
        f"CREATE OR REPLACE VIEW images AS SELECT {', '.join(kept + made)} FROM kept_images"
    )


MakeTable = Callable[..., str]


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Parse and run one command module, as the front desk does."""
    module = importlib.import_module(f"textspot_ray.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"textspot {name}")
    module.add_arguments(parser)
    return int(module.main(parser.parse_args(list(arguments))))


def write_run(
    out: str,
    sources: Sequence[str],
    words_of: Callable[[Item], Sequence[Word]],
    shard_items: int = 32,
) -> None:
    """A table over real sources, planned and committed as a run does, with given words."""
    image = ImageConfig()
    config = SourceConfig(uris=tuple(sources))
    store = open_store(out, create=True)
    ledger = open_ledger(store, FINGERPRINT)
    output = OutputConfig(max_shard_items=shard_items, min_shard_items=min(32, shard_items))
    plan = Plan(store)
    update_plan(plan, list_items(config, image), output, "run-1")
    with Reader(config, image) as reader:
        for task in plan.tasks(ledger):
            shard = plan.load(task)
            with ShardWriter(
                store, shard, run_id="run-1", fingerprint=ledger.digest, environment={"node": "n1"}
            ) as writer:
                for encoded in reader.read(shard.items):
                    writer.add(_spotted(encoded, image, words_of))
                assert writer.commit() is not None


def _spotted(
    encoded: Encoded, image: ImageConfig, words_of: Callable[[Item], Sequence[Word]]
) -> ImageResult:
    item = encoded.item
    if encoded.data is None:
        return ImageResult(item, 0, None, error=encoded.error)
    found = decode(encoded.data, max_pixels=image.max_pixels)
    if isinstance(found, ImageError):
        return ImageResult(item, 0, None, error=found, read_s=0.01)
    info = PageInfo(found.width, found.height, found.format, found.exif_orientation)
    words = tuple(words_of(item))
    return ImageResult(item, 0, info, words, 0, None, 0.01, 0.02, 0.3, 0.01 * len(words))
