"""Everything a run depends on, checked before it starts: one line each, with how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from textspot_ray.config import RunConfig
from textspot_ray.doctor import machine as check_machine
from textspot_ray.doctor import model as check_model
from textspot_ray.doctor import nodes as check_nodes
from textspot_ray.doctor import storage as check_storage
from textspot_ray.doctor.finding import CheckResult, Level, guarded
from textspot_ray.errors import ExitCode


def examine(config: RunConfig) -> Iterator[CheckResult]:
    """Run the checks that a configuration asks for, the quick ones first.

    A check that breaks is a finding too. Sources, output and the nodes of a cluster are looked at
    only where they are named.
    """
    engine, source, output = config.engine, config.source, config.output
    checks: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("versions", check_machine.check_versions),
        ("cpu", check_machine.check_cpu),
        ("threads", partial(check_machine.check_threads, engine)),
        ("memory", partial(check_machine.check_memory, engine)),
        ("disk", partial(check_machine.check_disk, engine)),
        ("limits", check_machine.check_limits),
    ]
    for uri in source.uris:
        checks.append(("source", partial(check_storage.check_source, uri, source.storage_options)))
    if output.uri:
        check = partial(check_storage.check_output, output.uri, output.storage_options)
        checks.append(("output", check))
    checks.append(("model", partial(check_model.check_model, config.model)))
    if engine.address:
        check = partial(check_nodes.check_nodes, engine.address, config.model.name)
        checks.append(("nodes", check))
    for name, run in checks:
        yield from guarded(name, run)


def verdict(findings: Iterable[CheckResult]) -> ExitCode:
    """0 when nothing fails, else 5; warnings do not count."""
    failed = any(finding.level is Level.FAIL for finding in findings)
    return ExitCode.ABORTED if failed else ExitCode.OK
