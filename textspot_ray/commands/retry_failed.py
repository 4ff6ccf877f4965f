"""Try failed images again, with the settings the table was made with.

By default only failures that may go away (missing files, denied access, time-outs, storage faults,
crashes); --all retries every failed image.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import (
    add_folder_argument,
    add_kind_option,
    storage_options,
    table_ledger,
)
from textspot_ray.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textspot_ray.config import RunConfig
    from textspot_ray.records import ErrorKind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--all", action="store_true", help="every failed image")
    add_kind_option(parser)
    parser.add_argument("--engine", choices=("ray", "local"), help="default: as in the last run")
    parser.add_argument("--address", metavar="ADDR", help="of a running Ray cluster")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one configuration key"
    )


def main(args: argparse.Namespace) -> int:
    """Retry and report."""
    from textspot_ray.commands.summary import print_report
    from textspot_ray.config import redactor_of
    from textspot_ray.engine.progress import console
    from textspot_ray.engine.ray.token import protect_own_ray
    from textspot_ray.engine.run import exit_code, retry
    from textspot_ray.engine.slot.events import set_up_logging
    from textspot_ray.wording import number

    kinds = _kinds(args)
    failures = table_ledger(args).counts().failures
    waiting = sum(failures.get(str(kind), 0) for kind in kinds)
    if not waiting:
        others = ", ".join(f"{number(n)} {kind}" for kind, n in sorted(failures.items()) if n)
        why = f"others failed ({others}): --all tries them, too" if others else "none failed"
        print(f"no failed image of the chosen kinds: nothing to try again; {why}")
        return ExitCode.OK
    config = _stored_config(args)
    set_up_logging(config.engine.log_format, redactor_of(config))
    protect_own_ray(config.engine)
    progress = console(config.engine.progress_s, log_format=config.engine.log_format)
    report = retry(config, kinds=kinds, on_progress=progress)
    print_report(report)
    return exit_code(report)


def _kinds(args: argparse.Namespace) -> frozenset[ErrorKind]:
    from textspot_ray.records import ErrorKind
    from textspot_ray.tables.maintenance.retry_failed import TRANSIENT

    if not args.kind:
        return frozenset(ErrorKind) if args.all else TRANSIENT
    return frozenset(args.kind)


def as_meant(config: RunConfig, fingerprint: Mapping[str, str]) -> RunConfig:
    """A stored configuration with its values as they are understood today.

    ``image.tiles: auto`` meant all tiles until `spotting.coarse_to_fine` came; whether it did is
    in the table's fingerprint.
    """
    from textspot_ray.spotting.coarse_to_fine import COARSE_TO_FINE

    tiles = fingerprint.get("tiles", "")
    if config.image.tiles == "auto" and tiles and COARSE_TO_FINE not in tiles:
        return replace(config, image=replace(config.image, tiles="all"))
    return config


def _stored_config(args: argparse.Namespace) -> RunConfig:
    """The last run's configuration, overridden by the options of this command."""
    import json

    from textspot_ray.config import stored_config, with_overrides
    from textspot_ray.errors import TableError
    from textspot_ray.tables.status import read_run, run_ids

    ledger = table_ledger(args)
    for run_id in reversed(run_ids(ledger.store)):
        stored = read_run(ledger.store, run_id).get("config")
        if isinstance(stored, dict):
            break
    else:
        raise TableError(f"{args.table} has no record of a run, so its settings are not known")
    overrides = [*args.set, f"output.uri={json.dumps(args.table)}"]
    for option, key in (("engine", "engine.kind"), ("address", "engine.address")):
        if getattr(args, option):
            overrides.append(f"{key}={json.dumps(getattr(args, option))}")
    config = with_overrides(as_meant(stored_config(stored), ledger.fingerprint), overrides)
    if (given := storage_options(args)) is None:
        return config
    return replace(
        config,
        source=replace(config.source, storage_options=given),
        output=replace(config.output, storage_options=given),
    )
