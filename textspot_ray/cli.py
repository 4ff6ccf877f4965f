"""The ``textspot`` program: imports only the module of the command that is asked for."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from textspot_ray._version import __version__
from textspot_ray.errors import ExitCode, TextspotError, did_you_mean, printable
from textspot_ray.import_path import forget_working_folder
from textspot_ray.redaction import redact_text


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its one-line help and the module with ``add_arguments`` and ``main``."""

    help: str
    module: str


_DEBUG = "TEXTSPOT_DEBUG"
_COMPLETION = "_ARGCOMPLETE"
GROUPS: dict[str, dict[str, Command]] = {
    "make tables": {
        "read": Command("print what stands in a few images; no tables", "commands.read"),
        "run": Command("spot every word in SOURCE... and write tables", "commands.run"),
        "plan": Command("dry run: what a run would read and cost", "commands.plan"),
        "status": Command("how far a table is", "commands.status"),
        "errors": Command("list failed images with stage, kind and message", "commands.errors"),
        "retry-failed": Command("try failed images again", "commands.retry_failed"),
        "verify": Command("check files, checksums, counts and sums", "commands.verify"),
        "files": Command("list the committed files, for other engines", "commands.files"),
        "clean": Command("delete what killed runs left behind", "commands.clean"),
        "models": Command("list, check, fetch and quantise model bundles", "commands.models"),
        "submit": Command("hand a run to a Ray cluster or to Kubernetes", "commands.submit"),
        "doctor": Command("check storage, model, CPU, disk and Ray", "commands.doctor"),
    },
    "use tables": {
        "query": Command("SQL over words, images, errors and runs", "commands.query"),
        "search": Command("find words: exact, prefix, fuzzy, phrases, in a box", "commands.search"),
        "view": Command("one HTML page of images with their words", "commands.view"),
        "browse": Command("the same live in a browser, for large tables", "commands.browse"),
        "export": Command("hOCR, ALTO, PAGE, COCO, PDF, word crops and more", "commands.export"),
        "evaluate": Command("score a table against ground truth", "commands.evaluate"),
        "diff": Command("compare two tables of the same images", "commands.diff"),
        "stats": Command("figures and plots of a table", "commands.stats"),
    },
    "keep tables": {
        "compact": Command("merge many files into few, sorted for look-ups", "commands.compact"),
        "merge": Command("join two tables made with the same settings", "commands.merge"),
        "forget": Command("take images and their words out for good", "commands.forget"),
    },
}


def find_command(name: str) -> Command | None:
    """The command of that name, or None."""
    return next((group[name] for group in GROUPS.values() if name in group), None)


def overview() -> str:
    """The text of ``textspot --help``."""
    lines = ["usage: textspot COMMAND [...]", "", "Find and read every word in archives of images."]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<14}{command.help}" for name, command in group.items()]
    lines += [
        "",
        "textspot help COMMAND shows the options of a command.",
        "exit codes: 0 done, 1 no hits, 2 usage, 3 done with failed images, 4 other settings in",
        "            the table, 5 aborted, 130/143 drained after a signal",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a user's mistake never shows a traceback."""
    _escape_unencodable()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        forget_working_folder()
        if _COMPLETION in os.environ:  # a shell asks for completions
            from textspot_ray.commands.completion import complete

            complete(GROUPS)
    try:
        code = _main(arguments)
        try:
            sys.stdout.flush()  # a closed pipe shows here, not at exit
        except BrokenPipeError:
            _discard_stdout()
        return code
    except TextspotError as exc:
        return _fail(str(exc), exc.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader has closed our output (`| head`)
        _discard_stdout()
        return ExitCode.OK
    except Exception as exc:  # a bug; never exit status 1, which means "no hits"
        if os.environ.get(_DEBUG):
            raise
        what = " ".join(f"{type(exc).__name__}: {exc}".split())[:500]
        return _fail(f"internal error: {what} ({_DEBUG}=1 shows where)", ExitCode.ABORTED)


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [*arguments[1:], "--help"]  # as git has it
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return ExitCode.OK if arguments else ExitCode.USAGE
    if arguments[0] in ("-V", "--version"):
        print(f"textspot-ray {__version__}")
        return ExitCode.OK
    name = arguments[0]
    command = find_command(name)
    if command is None:
        return _fail(_unknown(name), ExitCode.USAGE)
    return _run(name, command, arguments[1:])


def _run(name: str, command: Command, arguments: list[str]) -> int:
    from textspot_ray.commands.parser import CommandParser

    module = importlib.import_module(f"textspot_ray.{command.module}")
    parser = CommandParser(f"textspot {name}", module.__doc__)
    module.add_arguments(parser)
    try:
        # intermixed: `search DIR --fuzzy 1 TERM` must work; sub-commands cannot be parsed so
        mixed = parser.parse_args if parser._subparsers else parser.parse_intermixed_args
        parsed = mixed(arguments)
    except SystemExit as exit_:  # argparse has printed the usage error or the help
        return int(exit_.code or 0)
    return int(module.main(parsed))


def _escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unknown(name: str) -> str:
    names = [known for group in GROUPS.values() for known in group]
    hint = did_you_mean(name, names) or "; textspot --help lists the commands"
    return f"no command {name!r}{hint}"


def _fail(message: str, code: int) -> int:
    print(f"textspot: {printable(redact_text(message))}", file=sys.stderr)
    return code
