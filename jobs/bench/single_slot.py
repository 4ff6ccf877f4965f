"""One slot opened by hand, on either engine: for measuring and for trying things out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from textspot_ray.engine.slot.slot import Job, Report, Slot

if TYPE_CHECKING:
    from textspot_ray.tables.plan.plan import Task


class Steps(Protocol):
    """A slot, wherever it runs."""

    def step(self, tasks: Sequence[Task], timeout_s: float, *, more: bool) -> Report:
        """See `Slot.step`."""

    def close(self) -> None:
        """End the workers."""


def open_slot(job: Job) -> Steps:
    """A slot on the engine that the job's configuration names; the caller closes it."""
    return _RaySlot(job) if job.config.engine.kind == "ray" else _local_slot(job)


def _local_slot(job: Job) -> Slot:
    from textspot_ray.engine.local import ChildWorker
    from textspot_ray.engine.sizing import available_cpus, share_threads

    threads = share_threads(available_cpus(), job.config.engine)
    models = job.recipe.models
    return Slot(job, lambda events: [ChildWorker(models, events, threads.detect_calls)], threads)


class _RaySlot:
    """A placement group with a runner and its actors on the largest node."""

    def __init__(self, job: Job) -> None:
        import ray
        from ray.util.placement_group import placement_group

        from textspot_ray.engine.ray.actors import ALONE, RunnerActor, in_group
        from textspot_ray.engine.ray.cluster import RayCluster
        from textspot_ray.engine.sizing import slots_of_node

        self._cluster = RayCluster(job.config.engine, job.run_id)
        self._cluster.__enter__()
        largest = max((node.cpus for node in self._cluster.nodes()), default=1.0)
        _, shape = slots_of_node(largest, job.config.engine)
        bundles = shape.bundles
        self._group = placement_group(bundles, strategy="STRICT_PACK")
        options = in_group(self._group, 0, bundles[0]["CPU"])
        runner: Any = ray.remote(RunnerActor)
        self._runner = runner.options(**ALONE, **options).remote(job, shape, self._group)
        ray.get(self._runner.open.remote())

    def step(self, tasks: Sequence[Task], timeout_s: float, *, more: bool) -> Report:
        """See `Slot.step`."""
        import ray

        report: Report = ray.get(self._runner.step.remote(tasks, timeout_s, more, False))
        return report

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        import ray
        from ray.util.placement_group import remove_placement_group

        ray.get(self._runner.close.remote())
        ray.kill(self._runner, no_restart=True)
        remove_placement_group(self._group)
        self._cluster.__exit__(None, None, None)
