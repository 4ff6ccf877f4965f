"""Checks of a running Ray cluster: every node has the same Ray, Python, package and bundle."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from textspot_ray.doctor.finding import CheckResult, fail, ok, warn

_NODE_S: Final = 60.0
_SKEW_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What one node reports about itself.

    Attributes:
        package: Version of this package; empty if it is not there.
        openvino: Its version; results may differ between two.
        flags: Instruction sets that choose the kernels.
        model: The bundle's checksums, or why it could not be read.
        ahead_s: How far its clock is ahead of the driver's, transport time included.
    """

    address: str
    ray: str
    python: str
    package: str
    openvino: str
    flags: str
    model: str
    ahead_s: float = 0.0


def check_nodes(address: str, model: str) -> Iterator[CheckResult]:
    """Ask every node of a cluster.

    Args:
        address: As `ray.init` takes it.
        model: The bundle a run would use.

    Raises:
        UsageError: It cannot be joined.
    """
    import ray

    from textspot_ray.engine.ray.cluster import join

    joined = not ray.is_initialized()
    if joined:
        join(address, logging_level="ERROR", log_to_driver=False)  # raises, with one line
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        found, silent = _ask(nodes, model)
    finally:
        if joined:
            ray.shutdown()
    yield from compare_nodes(found, len(nodes))
    for name, reason in silent:
        missing = "No module named 'textspot_ray'" in reason
        fix = (
            "install the same textspot-ray there, or use the image of infra/docker"
            if missing
            else "check that node's raylet and its memory"
        )
        yield fail("nodes", f"{name}: {reason}", fix)


def describe_node(model: str) -> dict[str, str]:
    """Runs on each node; plain values, so that another version of this package can send them."""
    from importlib.metadata import PackageNotFoundError, version

    from textspot_ray._version import __version__
    from textspot_ray.errors import TextspotError
    from textspot_ray.spotting.catalogue import load_bundle
    from textspot_ray.tables.environment import describe_environment

    facts = describe_environment()
    try:
        bundle = load_bundle(model)
        sums = bundle.sha256s(bundle.resolve_precision(None))
        state = f"{bundle.spec.name} {bundle.spec.version} {sorted(sums.items())}"
    except TextspotError as exc:
        state = f"unreadable: {exc}"
    try:
        openvino = version("openvino")
    except PackageNotFoundError:
        openvino = ""
    return {
        "ray": facts.get("ray", ""),
        "python": platform.python_version(),
        "package": __version__,
        "openvino": openvino,
        "flags": facts.get("cpu_flags", ""),
        "model": state,
        "time_s": repr(time.time()),
    }


def compare_nodes(nodes: Sequence[NodeFacts], expected: int) -> Iterator[CheckResult]:
    """What differs between nodes, and whether that matters.

    Args:
        nodes: The nodes that answered.
        expected: Number of live nodes.
    """
    if not nodes:
        if not expected:
            yield fail("nodes", "the cluster has no live node", "start some, or wait for them")
        return
    yield ok("nodes", f"{len(nodes)} of {expected} answered, Ray {nodes[0].ray}")
    rules: tuple[tuple[str, Callable[[NodeFacts], str], bool, str], ...] = (
        ("Ray", lambda node: node.ray, True, "install one version on all"),
        (
            "Python",
            lambda node: ".".join(node.python.split(".")[:2]),
            True,
            "one minor version on all",
        ),
        ("textspot-ray", lambda node: node.package, True, "install one version on all"),
        ("bundle", lambda node: node.model, False, "a run ships the driver's to the others"),
        ("openvino", lambda node: node.openvino, False, "results may differ in the last digits"),
        (
            "CPU types",
            lambda node: node.flags,
            False,
            "boxes agree within 0.5 px, confidences within 0.001; keep the precision fixed",
        ),
    )
    for name, value, matters, fix in rules:
        groups: dict[str, list[str]] = {}
        for node in nodes:
            groups.setdefault(value(node), []).append(node.address)
        if len(groups) > 1:
            text = f"{name} differs: " + "; ".join(
                f"{_short(key)} on {', '.join(where[:3])}{' ...' if len(where) > 3 else ''}"
                for key, where in sorted(groups.items())
            )
            yield fail("nodes", text, fix) if matters else warn("nodes", text, fix)
    if all(node.model.startswith("unreadable") for node in nodes):
        yield ok("nodes", "no node has the bundle; a run ships the driver's")
    for node in nodes:
        if abs(node.ahead_s) > _SKEW_S:
            text = f"{node.address}: clock is {node.ahead_s:+.0f} s off"
            yield warn("nodes", text, "set its clock (NTP)")


def _ask(
    nodes: Sequence[dict[str, Any]], model: str
) -> tuple[list[NodeFacts], list[tuple[str, str]]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(describe_node)
    open_calls = []
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        placed = task.options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        open_calls.append((node, placed.remote(model)))
    found: list[NodeFacts] = []
    silent: list[tuple[str, str]] = []
    deadline_s = time.monotonic() + _NODE_S
    for node, ref in open_calls:
        address = str(node["NodeManagerAddress"])
        try:
            facts = ray.get(ref, timeout=max(0.1, deadline_s - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            silent.append((address, f"no answer within {_NODE_S:.0f} s"))
            continue
        except Exception as exc:  # a task's error carries the node's own exception type
            lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
            silent.append((address, lines[-1][:200] if lines else type(exc).__name__))
            continue
        ahead_s = float(facts.pop("time_s")) - time.time()
        found.append(NodeFacts(address=address, ahead_s=ahead_s, **facts))
    return found, silent


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}..."
