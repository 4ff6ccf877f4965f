"""A run's figures as Ray metrics, for Prometheus; the names below are part of the interface.

The driver publishes them, so they are sums over the whole run whatever dies meanwhile. Ray adds
the prefix ``ray_`` and its own labels; ours is ``out``, the URI of the output. All are gauges:
a run that resumes begins its own counts at zero, while ``items_done`` and ``items_planned``
include earlier runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from textspot_ray.engine.progress import OnProgress, Progress
from textspot_ray.engine.slot.slot_metrics import PARTS, QUEUES, RETRIES
from textspot_ray.records import TIMED_STAGES
from textspot_ray.redaction import redact_text

INTERVAL_S: Final = 5.0
_UNKNOWN: Final = -1.0  # a gauge always has a value

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge.

    Attributes:
        description: With its unit.
        values: One value by "" or, with a label, one by each of the label's values.
        label: The second label beside ``out``, if there is one.
    """

    description: str
    values: Callable[[Progress], Values]
    label: str = ""


def _one(description: str, value: Callable[[Progress], float]) -> Metric:
    return Metric(description, lambda p: {"": float(value(p))})


def _by(
    label: str, known: Iterable[str], description: str, values: Callable[[Progress], Values]
) -> Metric:
    """A labelled gauge; known values of the label are always there, 0 by default."""
    zeros = dict.fromkeys(known, 0.0)
    return Metric(description, lambda p: {**zeros, **values(p)}, label)


METRICS: Final[dict[str, Metric]] = {
    "textspot_items_planned": _one(
        "Items in the plan, those of earlier runs included", lambda p: p.items_planned
    ),
    "textspot_items_done": _one(
        "Items finished, those of earlier runs included", lambda p: p.items_done
    ),
    "textspot_images": _one("Images (pages) finished by this run", lambda p: p.images),
    "textspot_words": _one("Words found by this run", lambda p: p.words),
    "textspot_failed_images": _one("Images failed in this run", lambda p: p.failed),
    "textspot_failures": _by(
        "kind", (), "Images failed in this run, by kind", lambda p: p.failures
    ),
    "textspot_shards_committed": _one("Shards committed by this run", lambda p: p.shards_done),
    "textspot_images_per_second": _one("Rate over the last minute", lambda p: p.images_per_s),
    "textspot_eta_seconds": _one(
        "Seconds to go at that rate; -1 while it is not known",
        lambda p: _UNKNOWN if p.eta_s is None else p.eta_s,
    ),
    "textspot_elapsed_seconds": _one("Seconds since the run began", lambda p: p.elapsed_s),
    "textspot_planning": _one("1 while sources are being listed", lambda p: p.planning),
    "textspot_running": _one(
        "1 while the driver works; gone with it, 0 only if the cluster outlives the run's end",
        lambda p: not p.final,
    ),
    "textspot_slots": _one("Slots that work", lambda p: sum(p.slots.values())),
    "textspot_nodes": _one("Nodes with a slot that works", lambda p: len(p.slots)),
    "textspot_stage_seconds": _by(
        "stage",
        TIMED_STAGES,
        "Seconds of work by stage, summed over this run's images",
        lambda p: p.stage_s,
    ),
    "textspot_queue": _by(
        "queue",
        QUEUES,
        "Images of all slots that wait or are worked at (commit: shards)",
        lambda p: p.waiting,
    ),
    "textspot_memory_bytes": _by(
        "part",
        PARTS,
        "Unique memory (USS) of the largest process of each kind",
        lambda p: p.memory_bytes,
    ),
    "textspot_retries": _by(
        "what",
        RETRIES,
        "Done again in this run: images after a worker's end, shards after a slot's, requests "
        "after a passing storage fault",
        lambda p: p.retries,
    ),
}


class RayMetrics:
    """An `OnProgress` that sets the gauges every few seconds, while Ray is up.

    Args:
        out: The output's URI, as a label.
        interval_s: Seconds between two settings.
        make: Makes a gauge from name, description and tag keys; default Ray's.
    """

    def __init__(
        self, out: str, interval_s: float = INTERVAL_S, make: Callable[..., Any] | None = None
    ) -> None:
        self._tags = {"out": redact_text(out)}
        self._interval_s = interval_s
        self._make = make
        self._gauges: dict[str, Any] = {}
        self._set_s = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Publish, if it is time to."""
        now = time.monotonic()
        if self._make is None and not _ray_is_up():
            return  # not yet, or no longer: a run's last report comes after Ray has stopped
        if now - self._set_s < self._interval_s and not progress.final:
            return
        self._set_s = now
        for name, metric in METRICS.items():
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = self._gauges[name] = self._gauge(name, metric)
            for key, value in metric.values(progress).items():
                label = {metric.label: key} if metric.label else {}
                gauge.set(float(value), tags={**self._tags, **label})

    def _gauge(self, name: str, metric: Metric) -> Any:
        tag_keys = ("out", metric.label) if metric.label else ("out",)
        if self._make is not None:
            return self._make(name, description=metric.description, tag_keys=tag_keys)
        from ray.util.metrics import Gauge

        return Gauge(name, description=metric.description, tag_keys=tag_keys)


def _ray_is_up() -> bool:
    import ray

    return bool(ray.is_initialized())


def both(*observers: OnProgress | None) -> OnProgress | None:
    """One `OnProgress` out of several; None if none is given."""
    present = [observer for observer in observers if observer is not None]
    if not present:
        return None

    def observe(progress: Progress) -> None:
        for observer in present:
            observer(progress)

    return observe
