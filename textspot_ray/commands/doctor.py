"""Check what a run needs: storage rights, model, CPU, cores, disk, clock, the cluster's nodes.

One line a check: ok, warn or fail, with how to fix it. Exits 0 when nothing fails, else 5.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from textspot_ray.commands.options import with_storage_options
from textspot_ray.commands.table_options import add_store_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--source", action="append", default=[], metavar="URI", help="to be read")
    parser.add_argument("--out", "-o", metavar="DIR", help="to be written")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: embedded")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), help="default: bundle's")
    parser.add_argument("--address", metavar="ADDR", help="of a Ray cluster: all nodes are asked")
    parser.add_argument("--config", "-c", metavar="YAML", help="configuration of the run to come")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one configuration key"
    )
    add_store_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def main(args: argparse.Namespace) -> int:
    """Print the findings as they come."""
    from textspot_ray.doctor.doctor import examine, verdict
    from textspot_ray.options import config_of

    given = {name: getattr(args, name) for name in ("model", "precision", "out", "address")}
    made = config_of(args.source, given, config=args.config, overrides=args.set)
    findings = []
    for finding in examine(with_storage_options(made, args)):
        findings.append(finding)
        if args.json:
            print(json.dumps(dataclasses.asdict(finding)), flush=True)
        else:
            print(finding.line(), flush=True)
    return verdict(findings)
