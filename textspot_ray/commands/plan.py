"""Dry run: what a run with these options would read, skip, tile and cost; nothing is written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textspot_ray.commands.options import add_run_options, run_config
from textspot_ray.errors import ExitCode
from textspot_ray.redaction import redact_text

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig
    from textspot_ray.records import Encoded, Item, Skipped
    from textspot_ray.spotting.spotter import TextSpotter
    from textspot_ray.tables.plan.planner import PlanSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_run_options(parser, out_required=False)
    parser.add_argument(
        "--probe",
        type=int,
        default=8,
        metavar="N",
        help="spot N images of the sources in this process, to estimate time and tiles (default 8)",
    )


def main(args: argparse.Namespace) -> int:
    """Print what a run would do."""
    from textspot_ray.commands.summary import byte_size, number

    config = run_config(args)
    survey = _Survey(config, args.probe)
    summary = survey.plan()
    print(f"items    {number(summary.listed)} listed, {byte_size(summary.bytes)} of new ones")
    if summary.unsized:
        print(f"         {number(summary.unsized)} of unknown size")
    for reason, n in sorted(summary.skipped.items()):
        print(f"skipped  {number(n)} {reason}")
    print(
        f"to do    {number(summary.new)} new in {number(summary.shards)} shard(s), "
        f"{number(summary.changed)} changed, {number(summary.broken)} unreadable already"
    )
    if survey.already is not None:
        print(f"done     {number(survey.already)} items are in {redact_text(config.output.uri)}")
    for line in survey.estimate(summary.new):
        print(line)
    return ExitCode.OK


class _Survey:
    """Lists the sources, keeps a sample of the items, and times the model on it."""

    def __init__(self, config: RunConfig, probe: int) -> None:
        self._config = config
        self._probe = probe
        self._sample: list[Item] = []
        self.already: int | None = None

    def plan(self) -> PlanSummary:
        """Count what the sources hold against what the output has planned."""
        from textspot_ray.engine.components import fingerprint_of
        from textspot_ray.errors import TableError
        from textspot_ray.storage.stores import open_store
        from textspot_ray.tables.commit.ledger import open_ledger
        from textspot_ray.tables.plan.plan import Plan
        from textspot_ray.tables.plan.planner import update_plan

        output = self._config.output
        store = open_store(output.uri or "memory://textspot-plan", output.storage_options)
        plan = Plan(store)
        if output.uri:
            try:
                fingerprint = fingerprint_of(self._config)
                self.already = open_ledger(store, fingerprint, create=False).counts().items
            except TableError:
                self.already = None
        return update_plan(plan, self._items(), output, "plan", dry_run=True)

    def _items(self) -> Iterator[Item | Skipped]:
        from textspot_ray.records import Skipped
        from textspot_ray.sources.listing import list_items

        stride, seen = 1, 0
        for entry in list_items(self._config.source, self._config.image):
            # keeps every 2^k-th item, so that the sample spreads over a listing of any length
            if self._probe and not isinstance(entry, Skipped):
                if seen % stride == 0:
                    self._sample.append(entry)
                    if len(self._sample) >= 2 * self._probe:
                        self._sample, stride = self._sample[::2], stride * 2
                seen += 1
            yield entry

    def estimate(self, items: int) -> list[str]:
        """Time the sample; lines about tiles and hours."""
        import time

        from textspot_ray.commands.summary import duration
        from textspot_ray.sources.reader import Reader
        from textspot_ray.spotting.spotter import TextSpotter

        sample = self._sample[: self._probe]
        if not sample or not items:
            return []
        model = self._config.model
        spotter = TextSpotter.load(
            model.name,
            precision=model.precision,
            alphabet=model.alphabet,
            detection_threshold=model.detection_threshold,
            image=self._config.image,
        )
        reader = Reader(self._config.source, self._config.image)
        try:
            times, tiles = [], []
            for encoded in reader.read(sample):
                started = time.perf_counter()
                count = _spot(spotter, encoded)
                if count:
                    tiles.append(count)
                    times.append(time.perf_counter() - started)
        finally:
            reader.close()
        if not times:
            return [f"estimate none: none of {len(sample)} sampled images could be spotted"]
        # the first call warms up
        mean = sum(times[1:] or times) / len(times[1:] or times)
        return [
            f"tiles    {sum(tiles) / len(tiles):.1f} passes an image in a sample of {len(tiles)}",
            f"estimate {duration(mean * items)} on this machine, {mean:.2f} s an image",
        ]


def _spot(spotter: TextSpotter, encoded: Encoded) -> int:
    """Spot one image; the number of passes, 0 if it failed."""
    if encoded.data is None:
        return 0
    info = spotter.spot(encoded.data).info
    return info.tiles if info is not None else 0
