"""Model bundles: list them, check one, fetch a published one, quantise one.

    textspot models list
    textspot models fetch text-spotting-0005

models check compiles a bundle and reads an image.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator

from textspot_ray.commands import models_quantize
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    commands.add_parser("list", help="which models are here, their accuracy and licence")
    check = commands.add_parser("check", help="files, checksums, compile, one image")
    check.add_argument("model", nargs="?", default="embedded", metavar="NAME|DIR")
    check.add_argument("--precision", choices=("f32", "bf16", "int8"))
    fetch = commands.add_parser(
        "fetch", help="download a published model into the cache and verify it"
    )
    fetch.add_argument(
        "model", metavar="NAME", help="text-spotting-0003 ..., ppocrv6-small ...: see models list"
    )
    fetch.add_argument(
        "--weights",
        action="append",
        choices=("FP32", "FP16", "FP16-INT8"),
        help="which files of text-spotting (default FP32); may be given several times",
    )
    fetch.add_argument(
        "--from",
        dest="origin",
        metavar="DIR|URL",
        help="a folder with the files, a mirror, or rapidocr: the installed package",
    )
    models_quantize.add_arguments(
        commands.add_parser("quantize", help="make an int8 bundle, calibrated on your images")
    )


def main(args: argparse.Namespace) -> int:
    """Dispatch to the action."""
    actions = {
        "list": _list,
        "check": _check,
        "fetch": _fetch,
        "quantize": models_quantize.main,
    }
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from textspot_ray.errors import BundleError
    from textspot_ray.spotting.catalogue import known_names, load_bundle
    from textspot_ray.spotting.family import family_of

    for name in known_names():
        try:
            bundle = load_bundle(name)
        except BundleError as exc:
            print(f"{name}\n  {exc}")
            continue
        spec = bundle.spec
        print(f"{name}\n  {bundle.folder}")
        print(f"  version {spec.version}; precisions {', '.join(sorted(spec.precisions))}")
        limits = family_of(spec).limits(spec)
        if limits:
            print(f"  {limits}")
        for key, value in spec.accuracy.items():
            print(f"  {key}: {value}")
        origin = spec.provenance.get("publisher")
        print(f"  licence: {spec.licence}" + (f"; from {origin}" if origin else ""))
    return ExitCode.OK


def _check(args: argparse.Namespace) -> int:
    import numpy as np

    from textspot_ray.machine import int8_note
    from textspot_ray.spotting.settings import SpotterSettings, resolve
    from textspot_ray.spotting.spotter import TextSpotter

    settings = SpotterSettings(args.model, precision=args.precision)
    resolved = resolve(settings)
    print(f"{resolved.bundle.spec.name}: files and checksums are right ({resolved.precision})")
    spotter = TextSpotter.load(args.model, precision=args.precision)
    words = spotter(np.full((720, 1280, 3), 127, np.uint8))
    print(f"compiles, and finds {len(words)} words in a grey image")
    note = int8_note() if resolved.precision == "int8" else None
    if note is not None:
        print(f"note: {note}")
    return ExitCode.OK


def _fetch(args: argparse.Namespace) -> int:
    from textspot_ray.errors import UsageError, did_you_mean
    from textspot_ray.spotting import download, ppocr
    from textspot_ray.spotting.catalogue import load_bundle, published_names

    name = args.model
    if name not in published_names():
        hint = did_you_mean(name, published_names()) or "; textspot models list names them"
        raise UsageError(f"no published model {name!r}{hint}")
    if name in ppocr.names():
        if args.weights:
            raise UsageError(f"{name} is published in one form; leave --weights out")
        with _byte_bar(name) as advance:
            folder = ppocr.fetch_lines(name, origin=args.origin, on_bytes=advance)
    else:
        weights = args.weights or ["FP32"]
        sizes = {key: found.size for key, found in download.published_weights(name).items()}
        with _byte_bar(name, sum(sizes.get(key, 0) for key in {*weights})) as advance:
            folder = download.fetch_model(name, weights, origin=args.origin, on_bytes=advance)
    bundle = load_bundle(str(folder))
    files = {file for kept in bundle.spec.precisions.values() for file in kept.files()}
    size = sum(bundle.path(file).stat().st_size for file in files)
    print(
        f"{name} is in {folder}: {len(files)} files, {size / 1e6:.1f} MB, checksums right, "
        f"licence {bundle.spec.licence}; use it with --model {name}"
    )
    return ExitCode.OK


@contextlib.contextmanager
def _byte_bar(name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes on standard error; yields the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(name, total=total)
        yield lambda n: bars.advance(bar, n)
