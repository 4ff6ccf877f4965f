"""Nodes of a Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start_patiently(start: Callable[[], T]) -> T:
    """Ray gives its daemons 30 s to start, which a busy machine may not."""
    for _ in range(3):
        try:
            return start()
        except Exception as exc:
            print(f"Ray did not start: {exc}")
    return start()


def add_node(cluster, cpus=1):
    """One more node."""
    return start_patiently(lambda: cluster.add_node(num_cpus=cpus, object_store_memory=10**8))
