"""Completion in shells: commands, options, choices, model names and configuration keys.

eval "$(register-python-argcomplete textspot)"
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

_LINE = "COMP_LINE"


def complete(groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Answer a shell that asks through argcomplete, and end; return if that is not installed.

    Args:
        groups: The commands by group and name, each with its help and module.
    """
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(completed_parser(groups, os.environ.get(_LINE, "")))


def completed_parser(groups: Mapping[str, Mapping[str, Any]], line: str) -> argparse.ArgumentParser:
    """A parser of all commands, with options only for the command that the line names.

    Args:
        groups: As of `complete`.
        line: What has been typed so far.
    """
    parser = argparse.ArgumentParser("textspot")
    commands = parser.add_subparsers()
    typed = line.split()[1:2]
    for group in groups.values():
        for name, command in group.items():
            made = commands.add_parser(name, help=command.help)
            if typed == [name]:
                importlib.import_module(f"textspot_ray.{command.module}").add_arguments(made)
                for action in made._actions:
                    _suggest(action)
    return parser


def _suggest(action: argparse.Action) -> None:
    """Add suggestions to an option whose values argparse does not know."""
    if "--model" in action.option_strings:
        action.completer = _models  # type: ignore[attr-defined]
    elif "--set" in action.option_strings:
        action.completer = _keys  # type: ignore[attr-defined]


def _models(**_: Any) -> Iterable[str]:
    from textspot_ray.spotting.catalogue import known_names

    return known_names()


def _keys(**_: Any) -> Iterable[str]:
    from textspot_ray.config import RunConfig, config_to_dict

    sections = config_to_dict(RunConfig()).items()
    return [f"{section}.{key}=" for section, keys in sections for key in keys]
