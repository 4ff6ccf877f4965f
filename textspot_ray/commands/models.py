"""Model bundles: list what is there, check one, fetch a published one, write a stand-in."""

from __future__ import annotations

import argparse

from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    commands.add_parser("list", help="what is here, what is not, accuracy, licence")
    check = commands.add_parser("check", help="files, checksums, compile, one image")
    check.add_argument("model", nargs="?", default="embedded", metavar="NAME|DIR")
    check.add_argument("--precision", choices=("f32", "bf16", "int8"))


def main(args: argparse.Namespace) -> int:
    """Dispatch to the action."""
    actions = {"list": _list, "check": _check}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from textspot_ray.errors import BundleError
    from textspot_ray.spotting.bundle import PUBLISHED, load_bundle

    for name in ("embedded", *PUBLISHED):
        try:
            bundle = load_bundle(name)
        except BundleError as exc:
            print(f"{name}\n  {exc}")
            continue
        spec = bundle.spec
        print(f"{name}\n  {bundle.folder}")
        print(f"  version {spec.version}; precisions {', '.join(sorted(spec.precisions))}")
        for key, value in spec.accuracy.items():
            print(f"  {key}: {value}")
        print(f"  licence: {spec.licence}")
    return ExitCode.OK


def _check(args: argparse.Namespace) -> int:
    import numpy as np

    from textspot_ray.spotting.settings import SpotterSettings, resolve
    from textspot_ray.spotting.spotter import TextSpotter

    settings = SpotterSettings(args.model, precision=args.precision)
    resolved = resolve(settings)
    print(f"{resolved.bundle.spec.name}: files and checksums are right ({resolved.precision})")
    spotter = TextSpotter.load(args.model, precision=args.precision)
    words = spotter(np.full((720, 1280, 3), 127, np.uint8))
    print(f"compiles, and finds {len(words)} words in a grey image")
    return ExitCode.OK
