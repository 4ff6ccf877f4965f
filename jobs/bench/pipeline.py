"""The whole pipeline of one slot, held open: read, decode, detect, recognise, write, commit.

Start-up is left out: the models are loaded once, and a round runs a fixed number of images to
committed tables.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.bench.single_slot import open_slot
from textspot_ray.config import (
    EngineConfig,
    ImageConfig,
    ModelConfig,
    OutputConfig,
    RunConfig,
    SourceConfig,
)
from textspot_ray.engine.components import components_from
from textspot_ray.engine.slot.slot import Job
from textspot_ray.records import ImageResult, PageInfo, Word
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.plan.plan import Plan, Task
from textspot_ray.tables.plan.planner import update_plan

_RUN = "bench"
_SHARD_IMAGES = 32  # at most; a round has two shards, so that one starts while the other ends
_LEAST_SHARDS = 8  # of fewer, a plan makes smaller ones


@dataclass(slots=True)
class Spent:
    """What a pipeline's rounds came to.

    Attributes:
        images: Finished.
        words: Found.
        wall_s: Seconds of the rounds.
        stage_s: Seconds a stage, summed over images, as committed in the records.
    """

    images: int = 0
    words: int = 0
    wall_s: float = 0.0
    stage_s: Counter[str] = field(default_factory=Counter)


class Pipeline:
    """A slot with a plan of rounds.

    Args:
        model: A bundle's name or folder.
        precision: Of the bundle.
        photos: Images to repeat.
        work: An empty folder, for the source, the tables and the state.
        images: A round, at least; rounds are whole shards.
        rounds: How many there will be at most.
        engine: Threads, streams, kind and so on.
        alphabet: Of a bundle of lines.
    """

    def __init__(
        self,
        model: str,
        precision: str | None,
        photos: Sequence[Path],
        work: Path,
        *,
        images: int,
        rounds: int,
        engine: EngineConfig,
        alphabet: str | None = None,
    ) -> None:
        self._shards = max(2, math.ceil(images / _SHARD_IMAGES))
        size = math.ceil(images / self._shards)
        self.spent = Spent()
        source = work / "source"
        source.mkdir(parents=True)
        for i in range(size * max(self._shards * rounds, _LEAST_SHARDS)):
            photo = photos[i % len(photos)]
            shutil.copy(photo, source / f"{i:06d}{photo.suffix}")
        config = RunConfig(
            source=SourceConfig(uris=(str(source),)),
            image=ImageConfig(tiles="off"),
            model=ModelConfig(name=model, precision=precision, alphabet=alphabet),
            engine=engine,
            output=OutputConfig(uri=str(work / "out"), max_shard_items=size, min_shard_items=size),
        )
        parts = components_from(config)
        store = open_store(config.output.uri, create=True)
        ledger = open_ledger(store, parts.fingerprint)
        plan = Plan(store)
        update_plan(plan, parts.listing(), config.output, _RUN)
        self._tasks: Iterator[Task] = iter(list(plan.tasks(ledger)))
        job = Job(config, _RUN, dict(parts.fingerprint), parts.recipe)
        self._spare = (store, plan, ledger)
        self._slot = open_slot(job)

    def __call__(self) -> int:
        """Run one round to committed tables; the number of its images."""
        began, spent = time.perf_counter(), self.spent
        waiting, open_tasks, done = [next(self._tasks) for _ in range(self._shards)], 0, 0
        wants = True
        while waiting or open_tasks:
            given = [waiting.pop(0)] if waiting and wants else []
            open_tasks += len(given)
            report = self._slot.step(given, 0.25, more=bool(waiting))
            wants = report.wants
            for settled in report.settled:
                open_tasks -= 1
                done += settled.counts.images
                spent.words += settled.counts.words
                if settled.record is not None:
                    spent.stage_s.update(settled.record.stage_s)
        spent.images += done
        spent.wall_s += time.perf_counter() - began
        return done

    def write_s(self, words: int) -> float:
        """Seconds an image to write and commit a shard of images with that many words each.

        Takes a shard that no round has run.
        """
        store, plan, ledger = self._spare
        shard = plan.load(next(self._tasks))
        writer = ShardWriter(store, shard, run_id=_RUN, fingerprint=ledger.digest)
        info = PageInfo(width=1280, height=768, format="jpeg", exif_orientation=1)
        word = Word("letter", 0.5, (0.9,) * 6, 0.9, (0.0, 0.0, 9.0, 9.0), (0.0,) * 8, 0.0)
        began = time.perf_counter()
        for item in shard.items:
            writer.add(ImageResult(item=item, page=0, info=info, words=(word,) * words))
        writer.commit()
        return (time.perf_counter() - began) / len(shard.items)

    def close(self) -> None:
        """End the slot's workers."""
        self._slot.close()
