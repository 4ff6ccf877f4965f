"""Everything a run depends on, checked before it starts: one line each, with how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from textspot_ray.config import EngineConfig, ModelConfig
from textspot_ray.doctor import machine as check_machine
from textspot_ray.doctor import model as check_model
from textspot_ray.doctor import nodes as check_nodes
from textspot_ray.doctor import storage as check_storage
from textspot_ray.doctor.finding import CheckResult, Level, guarded
from textspot_ray.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Examination:
    """What to look at; storage and cluster only if named.

    Attributes:
        sources: URIs to read one image of.
        out: Folder of tables to write to.
        model: Bundle and precision.
        engine: Gives slots, threads and limits.
        address: Of a Ray cluster, whose nodes are all asked.
        source_options, out_options: fsspec options by protocol.
    """

    sources: tuple[str, ...] = ()
    out: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    address: str | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict)
    out_options: Mapping[str, Any] = field(default_factory=dict)


def examine(what: Examination) -> Iterator[CheckResult]:
    """Run the checks, the quick ones first; a check that breaks is a finding too."""
    checks: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("versions", check_machine.check_versions),
        ("cpu", check_machine.check_cpu),
        ("threads", partial(check_machine.check_threads, what.engine)),
        ("memory", partial(check_machine.check_memory, what.engine)),
        ("disk", partial(check_machine.check_disk, what.engine)),
        ("limits", check_machine.check_limits),
    ]
    for uri in what.sources:
        checks.append(("source", partial(check_storage.check_source, uri, what.source_options)))
    if what.out:
        checks.append(("output", partial(check_storage.check_output, what.out, what.out_options)))
    checks.append(("model", partial(check_model.check_model, what.model)))
    if what.address:
        checks.append(("nodes", partial(check_nodes.check_nodes, what.address, what.model.name)))
    for name, check in checks:
        yield from guarded(name, check)


def verdict(findings: Iterable[CheckResult]) -> ExitCode:
    """0 when nothing fails, else 5; warnings do not count."""
    failed = any(finding.level is Level.FAIL for finding in findings)
    return ExitCode.ABORTED if failed else ExitCode.OK
