"""Options that several commands share, and how they become a `RunConfig`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from textspot_ray.commands.table_options import (
    OPTIONS_VARIABLE,
    add_store_options,
    parse_storage_options,
)
from textspot_ray.config import RunConfig
from textspot_ray.errors import ConfigError
from textspot_ray.options import KEYS, config_of


def add_model_options(model: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options of the model: bundle, precision, threshold, alphabet, lists, tiles."""
    model.add_argument("--model", metavar="NAME|DIR", help="embedded (default), or a bundle")
    model.add_argument("--precision", choices=("f32", "bf16", "int8"), help="default: bundle's")
    model.add_argument("--detection-threshold", type=float, metavar="T", help="default: bundle's")
    model.add_argument(
        "--alphabet", metavar="NAME", help="of a model of lines: all, latin, or the characters"
    )
    model.add_argument(
        "--no-dictionary",
        dest="dictionary",
        action="store_false",
        default=None,
        help="do not weigh unsure readings by the bundle's list of words",
    )
    model.add_argument(
        "--words",
        metavar="FILE",
        help="words of your own (UTF-8 text) that weigh unsure readings, too",
    )
    model.add_argument(
        "--tiles",
        choices=("auto", "all", "off"),
        help="tiles of large images: those where a first look hints at text (auto), all, none",
    )


def add_run_options(parser: argparse.ArgumentParser, *, out_required: bool) -> None:
    """Add SOURCE..., --out, --config, --set and the short forms of common keys."""
    parser.add_argument(
        "source",
        nargs="*",
        metavar="SOURCE",
        help="folder, glob, image, list (txt, csv, jsonl, parquet), tar, zip; any fsspec URI",
    )
    parser.add_argument("--out", "-o", metavar="DIR", help="folder of the tables; any fsspec URI")
    parser.add_argument(
        "--unsafe-single-driver",
        action="store_true",
        default=None,
        help="write to a store that cannot put exclusively; no other driver may run then",
    )
    parser.add_argument("--config", "-c", metavar="YAML", help="configuration file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one configuration key"
    )
    add_store_options(parser)
    what = parser.add_argument_group("what is read")
    what.add_argument("--limit", type=int, metavar="N", help="the first N items")
    what.add_argument("--sample", type=float, metavar="F", help="this share, chosen by a hash")
    what.add_argument("--include", action="append", metavar="GLOB", help="only names that match")
    what.add_argument("--exclude", action="append", metavar="GLOB", help="no names that match")
    what.add_argument("--min-side", type=int, metavar="PX", help="smaller images are not spotted")
    what.add_argument("--base", metavar="PREFIX", help="taken off image ids")
    what.add_argument("--id-column", metavar="NAME", help="column of a list with the image id")
    what.add_argument("--uri-column", metavar="NAME", help="column of a list with the URI")
    what.add_argument("--image-column", metavar="NAME", help="Parquet column of image bytes")
    what.add_argument("--on-changed", choices=("keep", "redo"), help="sources that changed")
    what.add_argument(
        "--skip-duplicates",
        action="store_true",
        default=None,
        help="of files with the same bytes, spot only the first; all files are read when listed",
    )
    add_model_options(parser.add_argument_group("model"))
    where = parser.add_argument_group("where it runs")
    where.add_argument("--engine", choices=("ray", "local"), help="default: ray")
    where.add_argument("--address", metavar="ADDR", help="of a running Ray cluster")
    where.add_argument("--slots", type=int, metavar="N", help="shards worked on at a time")
    where.add_argument("--threads", type=int, metavar="N", help="inference threads a detector")
    parser.set_defaults(out_required=out_required)


def run_config(args: argparse.Namespace, *, environment: bool = True) -> RunConfig:
    """Merge YAML, ``--set`` and the short options, the later ones winning.

    Args:
        args: The parsed options.
        environment: Take storage options from the environment where nothing else gives any.

    Raises:
        ConfigError: A key or value is wrong, or sources or the output are missing.
        UsageError: Storage options cannot be read.
    """
    given = {name: getattr(args, name, None) for name in KEYS}
    made = config_of(args.source, given, config=args.config, overrides=args.set)
    config = with_storage_options(made, args, environment)
    if not config.source.uris:
        raise ConfigError("no SOURCE given: name a folder, archive, list or image to read")
    if args.out_required and not config.output.uri:
        raise ConfigError("no output folder given: add --out DIR")
    return config


def with_storage_options(
    config: RunConfig, args: argparse.Namespace, environment: bool = True
) -> RunConfig:
    """A configuration with the storage options given on the command line or by the environment.

    Args:
        config: As made so far.
        args: The parsed options, ``storage_options`` among them.
        environment: Take them from the environment where nothing else gives any.

    Raises:
        UsageError: They cannot be read.
    """
    source, output = config.source, config.output
    if args.storage_options is not None:
        given = parse_storage_options(args.storage_options, "--storage-options")
        source = replace(source, storage_options=given)
        output = replace(output, storage_options=given)
    elif environment and (text := os.environ.get(OPTIONS_VARIABLE)):
        given = parse_storage_options(text, OPTIONS_VARIABLE)
        source = replace(source, storage_options=source.storage_options or given)
        output = replace(output, storage_options=output.storage_options or given)
    return replace(config, source=source, output=output)
