"""The Ray engine's driver: places slots on nodes, feeds them with tasks, replaces what dies."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from textspot_ray.engine.control import DRAIN_S, Control
from textspot_ray.engine.ray.actors import (
    ALONE,
    NODE_DIED,
    UNREACHABLE,
    RunnerActor,
    describe_end,
    in_group,
    missing_module,
    not_installed,
)
from textspot_ray.engine.ray.cluster import Node, RayCluster
from textspot_ray.engine.ray.shipping import ship_bundle
from textspot_ray.engine.sizing import SlotShape, shape_for_slots, slots_of_node
from textspot_ray.engine.slot.limits import step_deadline_s
from textspot_ray.engine.slot.slot import Report
from textspot_ray.errors import AbortedError, TextspotError, UsageError

_LOG = logging.getLogger(__name__)
_STEP_S: Final = 1.0  # a slot reports at least so often
_TURN_S: Final = 0.25
_LOOK_S: Final = 10.0  # between two looks at the cluster's nodes
_LEAVING_S: Final = 2.0  # between two looks for nodes that are being drained
_CLOSE_S: Final = 5.0
_MANY: Final = 100  # with more slots, a turn for each report would be most of the work
_GATHER_S: Final = 0.02
_NODE_BLAME: Final = 0.2  # spot nodes go away; but a shard might also be what kills its node


def run_on_ray(control: Control) -> None:
    """Run until no task is left or a stop has drained every slot."""
    with RayCluster(control.job.config.engine, control.job.run_id) as cluster:
        control.stop.rearm()
        if cluster.is_shared:
            control.job = ship_bundle(control.job)
        scheduler = Scheduler(control, cluster)
        try:
            scheduler.run()
            scheduler.dismiss()
        finally:
            scheduler.close()


@dataclass(slots=True, eq=False)
class SlotHandle:
    """A slot's place on the cluster.

    Attributes:
        number: Of the slot; never reused.
        node: The node it was made for; None for any.
        where: The node it is on; None until its runner has started.
        ref: The open call, if any.
        since_s: When that call was sent.
        placed: Whether its placement group has its resources.
        has_progress: Whether it has finished an image.
        wants: Whether it wants a task.
        idle: Whether it has none.
        leave_by_s: When it must have left its node, which is being drained; None while it may stay.
    """

    number: int
    node: str | None
    group: Any
    runner: Any
    ref: Any
    since_s: float
    placed: bool = False
    has_progress: bool = False
    wants: bool = True
    idle: bool = True
    where: str | None = None
    leave_by_s: float | None = None

    @property
    def opened(self) -> bool:
        """Whether its runner has started."""
        return self.where is not None


@dataclass(slots=True)
class Scheduler:
    """Keeps as many slots as the cluster has room for, and all of them busy."""

    control: Control
    cluster: RayCluster
    _slots: list[SlotHandle] = field(default_factory=list)
    _made: int = 0
    _losses_without_progress: int = 0
    _looked_s: float = float("-inf")
    _leaving_s: float = 0.0
    _roomless_s: float | None = None  # since when no node has room for a slot
    _warned: bool = False

    def run(self) -> None:
        """Work until the end."""
        control = self.control
        while True:
            coming = control.turn()
            draining = control.draining
            if draining:
                if control.drain_is_over or not any(not slot.idle for slot in self._slots):
                    return
            elif not coming and not control.dispatch.busy:
                return
            else:
                self._place_slots()
            self._drain_leaving()
            self._feed(draining)
            self._collect()
            self._watch()

    @property
    def _silence_s(self) -> float:
        return step_deadline_s(self.control.job.config.engine.min_deadline_s)

    def dismiss(self) -> None:
        """Let the slots end their own workers, for a few seconds at most."""
        closing = [slot.runner.close.remote() for slot in self._slots if slot.opened]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)

    def close(self) -> None:
        """End all slots at once; their actors end with their placement groups."""
        for slot in self._slots:
            _end(slot)
        self._slots.clear()

    # Placing slots.

    def _place_slots(self) -> None:
        """Make the slots that are missing, also on nodes that joined later."""
        now = time.monotonic()
        if now - self._looked_s < _LOOK_S:
            return
        self._looked_s = now
        engine = self.control.job.config.engine
        nodes = self.cluster.nodes()
        self._forget_gone({node.id for node in nodes})
        if engine.slots is not None:
            shape = shape_for_slots([node.cpus for node in nodes], engine, engine.slots)
            self._add(None, shape, engine.slots - len(self._slots))
            return
        room = 0
        for node in nodes:
            count, shape = slots_of_node(node.cpus, engine)
            room += count
            here = sum(slot.node == node.id for slot in self._slots)
            self._add(node, shape, count - here)
        self._note_room(room > 0, nodes, now)

    def _note_room(self, there_is: bool, nodes: list[Node], now: float) -> None:
        """All nodes may be gone for a while: wait for new ones, with a limit."""
        engine = self.control.job.config.engine
        if there_is or any(slot.opened for slot in self._slots):
            self._roomless_s = None
            return
        if self._roomless_s is None:
            self._roomless_s = now
            if self._made:
                _LOG.warning("no node is left; waiting for %.0f s", engine.pending_timeout_s)
        if nodes:
            need = engine.cpus_per_slot or 0.5
            raise AbortedError(
                f"no node of the Ray cluster has the {need:g} CPUs a slot needs "
                f"(nodes: {', '.join(f'{n.address} {n.cpus:g}' for n in nodes)}); "
                "lower engine.cpus_per_slot or add nodes"
            )
        if now - self._roomless_s >= engine.pending_timeout_s:
            raise AbortedError(
                f"the Ray cluster has had no node with CPUs for {engine.pending_timeout_s:.0f} s: "
                "start workers and run again, or raise engine.pending_timeout_s"
            )

    def _forget_gone(self, alive: set[str]) -> None:
        """Give up slots that wait for a place on a node that is gone."""
        for slot in list(self._slots):
            if slot.node is not None and not slot.opened and slot.node not in alive:
                self._remove(slot)

    def _drain_leaving(self) -> None:
        """Drain slots on leaving nodes: complete shards are committed, others go to other slots."""
        now = time.monotonic()
        if now - self._leaving_s >= _LEAVING_S:
            self._leaving_s = now
            leaving = self.cluster.leaving()
            for slot in self._slots:
                if slot.where in leaving and slot.leave_by_s is None:
                    slot.leave_by_s = now + DRAIN_S
                    extra = {"slot": slot.number}
                    _LOG.warning(
                        "slot %d leaves: its node is being drained", slot.number, extra=extra
                    )
        for slot in list(self._slots):
            if slot.leave_by_s is None:
                continue
            if (slot.idle and slot.ref is None) or now > slot.leave_by_s:
                self._remove(slot)
                self._looked_s = float("-inf")

    def _add(self, node: Node | None, shape: SlotShape, count: int) -> None:
        for _ in range(count):
            bundles = [dict(bundle) for bundle in shape.bundles]
            if node is not None:
                bundles[0][f"node:{node.address}"] = 0.001
            # Several Ray nodes may share an address, and the id alone is only a preference: both.
            wish = node.id if node is not None else None
            group = placement_group(bundles, "STRICT_PACK", _soft_target_node_id=wish)
            options = in_group(group, 0, bundles[0]["CPU"])
            if node is not None:
                options["resources"] = {f"node:{node.address}": 0.001}
            actor = ray.remote(RunnerActor).options(**ALONE, **options)
            runner = actor.remote(self.control.job, shape, group)
            ref, now = runner.open.remote(), time.monotonic()
            self._slots.append(SlotHandle(self._made, wish, group, runner, ref, now))
            self._made += 1

    def _remove(self, slot: SlotHandle) -> None:
        """End a slot; its tasks go to others."""
        self._slots.remove(slot)
        _end(slot)
        self.control.on_lost(slot.number)

    def _lose(self, slot: SlotHandle, reason: str) -> None:
        """A slot is gone: its tasks go to others, and a new slot takes its place."""
        blame = _NODE_BLAME if reason in (NODE_DIED, UNREACHABLE) else 1.0
        losses = self.control.dispatch.losses(slot.number, blame)
        self._remove(slot)
        _LOG.warning(
            "slot %d is gone (%s); its shards are done again",
            slot.number,
            reason,
            extra={"slot": slot.number},
        )
        limit = self.control.job.config.engine.max_deaths
        if losses >= limit:
            raise AbortedError(
                f"a shard has ended its slot's runner too often; the last time: {reason}"
            )
        if not slot.has_progress:
            self._losses_without_progress += 1
            if self._losses_without_progress >= limit + len(self._slots):
                raise AbortedError(
                    f"{self._losses_without_progress} slots ended without a finished image in "
                    f"between; the last time: {reason}"
                )
        self._looked_s = float("-inf")

    # Feeding slots.

    def _feed(self, draining: bool) -> None:
        dispatch = self.control.dispatch
        for slot in self._slots:
            if slot.ref is not None or not slot.opened:
                continue
            ending = draining or slot.leave_by_s is not None
            task = dispatch.take(slot.number) if slot.wants and not ending else None
            if task is None and slot.idle:
                continue
            tasks = [task] if task is not None else []
            more = not ending and dispatch.has_for(slot.number)
            slot.ref = slot.runner.step.remote(tasks, _STEP_S, more, ending)
            slot.since_s = time.monotonic()
            slot.idle = False

    def _collect(self) -> None:
        open_calls = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not open_calls:
            time.sleep(_TURN_S / 5)
            return
        refs = list(open_calls)
        ready, _ = ray.wait(refs, num_returns=1, timeout=_TURN_S, fetch_local=False)
        if ready and len(refs) > 1:
            if len(refs) > _MANY:
                time.sleep(_GATHER_S)
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for ref in ready:
            slot = open_calls[ref]
            slot.ref = None
            try:
                answer = ray.get(ref, timeout=self._silence_s)
            except Exception as exc:  # the runner's process, its node, or an error in it
                if isinstance(fault := getattr(exc, "cause", None), TextspotError):
                    raise fault from None
                module = missing_module(exc)
                if module and not slot.opened:
                    raise UsageError(not_installed(module)) from exc
                self._lose(slot, describe_end(exc)[0])
                continue
            self._take(slot, answer)

    def _take(self, slot: SlotHandle, answer: Report | str) -> None:
        if isinstance(answer, str):
            slot.placed, slot.where = True, answer
            return
        if answer.settled or answer.open_counts.images or answer.helped:
            slot.has_progress = True
            self._losses_without_progress = 0
        slot.wants, slot.idle = answer.wants, answer.idle
        self.control.on_report(slot.number, answer)

    def _watch(self) -> None:
        engine = self.control.job.config.engine
        now = time.monotonic()
        for slot in list(self._slots):
            waited_s = now - slot.since_s
            if slot.opened:
                if slot.ref is not None and waited_s > self._silence_s:
                    self._lose(slot, f"no word from it for {waited_s:.0f} s")
            elif not slot.placed and waited_s > min(2.0, engine.pending_timeout_s):
                if slot.group.wait(0):
                    slot.placed, slot.since_s = True, now
                elif waited_s > engine.pending_timeout_s:
                    self._on_pending(slot, waited_s)
            elif slot.placed and waited_s > engine.start_timeout_s:
                self._lose(slot, f"its runner did not start within {waited_s:.0f} s")

    def _on_pending(self, slot: SlotHandle, waited_s: float) -> None:
        need = sum(bundle.get("CPU", 0.0) for bundle in slot.group.bundle_specs)
        if any(other.opened for other in self._slots):
            if not self._warned:
                self._warned = True
                _LOG.warning(
                    "a slot of %.3g CPUs has been waiting for a node for %.0f s; the run goes on "
                    "with the others",
                    need,
                    waited_s,
                )
            return
        free = ray.available_resources().get("CPU", 0.0)
        raise AbortedError(
            f"no slot placed within {waited_s:.0f} s: one needs {need:g} CPUs of a node, {free:g} "
            "are free in all; lower engine.cpus_per_slot, or wait"
        )


def _end(slot: SlotHandle) -> None:
    with contextlib.suppress(Exception):
        ray.kill(slot.runner, no_restart=True)
    with contextlib.suppress(Exception):
        remove_placement_group(slot.group)
