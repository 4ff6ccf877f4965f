"""Spot every word in the sources and write the tables words, images and errors.

    textspot run ~/Photos --out tables
    textspot run ~/Scans ~/old.zip --out tables --model ppocrv6-small --engine local
    textspot run 's3://bucket/2024/*.tar' --out s3://bucket/tables --address auto

Running the same command again resumes: committed work is neither redone nor read again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from textspot_ray.commands.options import add_run_options, run_config

if TYPE_CHECKING:
    from textspot_ray.spotting.bundle import BundleSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_run_options(parser, out_required=True)
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--quiet", "-q", action="store_true", help="no model line, no progress")
    how_much.add_argument(
        "--verbose", "-v", action="store_true", help="show the whole configuration first"
    )


def main(args: argparse.Namespace) -> int:
    """Run the job; the exit code says how it ended."""
    from textspot_ray.commands.summary import print_report
    from textspot_ray.config import dump_config, redactor_of
    from textspot_ray.engine.progress import console
    from textspot_ray.engine.ray.metrics import RayMetrics, both
    from textspot_ray.engine.ray.token import protect_own_ray
    from textspot_ray.engine.run import exit_code, run
    from textspot_ray.engine.slot.events import set_up_logging, tell
    from textspot_ray.machine import int8_note
    from textspot_ray.spotting.catalogue import load_bundle

    config = run_config(args)
    set_up_logging(config.engine.log_format, redactor_of(config))
    protect_own_ray(config.engine)
    bundle = load_bundle(config.model.name)
    precision = bundle.resolve_precision(config.model.precision)
    if precision == "int8":
        note = int8_note()
        if note is not None:
            logging.getLogger(__name__).warning("%s", note)
    if args.verbose:
        print(dump_config(config), file=sys.stderr, flush=True)
    if not args.quiet:
        tell(model_line(bundle.spec, precision), config.engine.log_format)
    progress = None
    if not args.quiet:
        progress = console(config.engine.progress_s, log_format=config.engine.log_format)
    metrics = RayMetrics(config.output.uri) if config.engine.kind == "ray" else None
    report = run(config, on_progress=both(progress, metrics))
    print_report(report)
    if bundle.spec.research_only:
        tell(
            f"note: the weights of {bundle.spec.name} are for research and evaluation only "
            "(terms of their training data; see its model card)",
            config.engine.log_format,
        )
    return exit_code(report)


def model_line(spec: BundleSpec, precision: str) -> str:
    """Which bundle runs, and what it can read."""
    from textspot_ray.spotting.bundle import BUILT_IN
    from textspot_ray.spotting.family import family_of

    limits = family_of(spec).limits(spec)
    line = f"model: {spec.name} {spec.version} ({precision})" + (f", {limits}" if limits else "")
    if spec.name in BUILT_IN:
        line += "; case, accents, punctuation, other scripts: --model ppocrv6-small"
    return line
