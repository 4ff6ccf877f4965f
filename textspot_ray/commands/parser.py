"""The argument parser of commands: help keeps its examples, errors are one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import NoReturn

from textspot_ray.errors import did_you_mean

_WHOLE = ("int", "count", "port", "_pixels")  # argparse types that take a whole number


class CommandParser(argparse.ArgumentParser):
    """`argparse`'s parser with our help, and one-line errors that suggest the closest valid word.

    Args:
        prog: What the usage line calls the command.
        description: Text of the help; indented lines of it stay as they are.
    """

    def __init__(self, prog: str | None = None, description: str | None = None) -> None:
        # an abbreviation that is unique today may be ambiguous tomorrow: scripts would break
        super().__init__(prog, description=description, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        words = self.prog.split()
        self.exit(
            2, f"{self.prog}: {self._reworded(message)} (textspot help {' '.join(words[1:])})\n"
        )

    def _reworded(self, message: str) -> str:
        if message.startswith("unrecognized arguments: "):
            unknown = message.partition(": ")[2].split()
            option = next((word for word in unknown if word.startswith("-")), None)
            if option is None:
                return f"too many arguments: {' '.join(unknown)}"
            option = option.partition("=")[0]
            return f"no option {option}{did_you_mean(option, self._options())}"
        named, _, what = message.removeprefix("argument ").partition(": ")
        if message.startswith("the following arguments are required: "):
            needed = message.partition(": ")[2].split(", ")
            may_lack = {action.metavar for action in self._actions if action.nargs in ("*", "?")}
            return f"missing {', '.join(name for name in needed if name not in may_lack)}"
        if not message.startswith("argument "):
            return message
        name = named.rpartition("/")[0] or named
        if found := re.match(r"invalid choice: (.+?) \(choose from (.*)\)$", what):
            given = found[1].strip("'")
            choices = re.split(r",\s*", found[2].replace("'", ""))
            hint = did_you_mean(given, choices) or f": one of {', '.join(choices)}"
            return f"{name} cannot be {given!r}{hint}"
        if found := re.match(r"invalid (\w+) value: (.+)$", what):
            kind = "a whole number" if found[1] in _WHOLE else "a number"
            return f"{name} takes {kind}, not {found[2]}"
        return f"{name}: {what}"

    def _options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings


class _Help(argparse.HelpFormatter):
    """Paragraphs are filled; indented ones are examples and stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for paragraph in text.strip("\n").split("\n\n"):
            if paragraph.startswith(" "):
                parts.append(paragraph.rstrip())
            else:
                parts.append(super()._fill_text(paragraph, width, indent))
        return "\n\n".join(parts)
