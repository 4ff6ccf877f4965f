"""A run's figures as Ray metrics, for Prometheus; the names below are part of the interface.

The driver publishes them, so they are whole-run sums whatever dies in between. Ray adds the prefix
``ray_`` and its own labels; ours is ``out``, the output's URI. All are gauges: a run that resumes
begins its own counts at zero, while ``items_done`` and ``items_planned`` include earlier runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from textspot_ray.cluster.progress import OnProgress, Progress

INTERVAL_S: Final = 5.0
_UNKNOWN: Final = -1.0  # a gauge cannot say that it has no value

Value = Callable[[Progress], float]

# name: description with its unit, value
METRICS: Final[dict[str, tuple[str, Value]]] = {
    "textspot_items_planned": (
        "Items in the plan, those of earlier runs included",
        lambda p: p.items_total,
    ),
    "textspot_items_done": (
        "Items finished, those of earlier runs included",
        lambda p: p.items_done,
    ),
    "textspot_images": ("Images (pages) finished by this run", lambda p: p.images),
    "textspot_words": ("Words found by this run", lambda p: p.words),
    "textspot_failed_images": ("Images failed in this run", lambda p: p.failed),
    "textspot_shards_committed": ("Shards committed by this run", lambda p: p.shards_done),
    "textspot_images_per_second": ("Rate over the last minute", lambda p: p.images_per_s),
    "textspot_eta_seconds": (
        "Seconds to go at that rate; -1 while it is not known",
        lambda p: _UNKNOWN if p.eta_s is None else p.eta_s,
    ),
    "textspot_elapsed_seconds": ("Seconds since the run began", lambda p: p.elapsed_s),
    "textspot_planning": ("1 while sources are being listed", lambda p: float(p.planning)),
    "textspot_running": (
        "1 while the driver works; gone with it, 0 only if the cluster outlives the run's end",
        lambda p: float(not p.final),
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
        self._tags = {"out": out}
        self._interval_s = interval_s
        self._make = make
        self._gauges: dict[str, Any] = {}
        self._set_s = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Publish, if it is time to."""
        now = time.monotonic()
        if self._make is None and not _ray_is_up():
            return  # not yet, or no more: a run's last report comes after Ray has ended
        if now - self._set_s < self._interval_s and not progress.final:
            return
        self._set_s = now
        for name, (description, value) in METRICS.items():
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = self._gauges[name] = self._gauge(name, description)
            gauge.set(float(value(progress)), tags=self._tags)

    def _gauge(self, name: str, description: str) -> Any:
        if self._make is not None:
            return self._make(name, description=description, tag_keys=("out",))
        from ray.util.metrics import Gauge

        return Gauge(name, description=description, tag_keys=("out",))


def _ray_is_up() -> bool:
    import ray

    return bool(ray.is_initialized())


def both(*observers: OnProgress | None) -> OnProgress | None:
    """One `OnProgress` out of several; None if none is given."""
    present = [observer for observer in observers if observer is not None]
    if not present:
        return None

    def tell(progress: Progress) -> None:
        for observer in present:
            observer(progress)

    return tell
