"""The command line's front door: help, unknown commands, faults as one line, lazy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from textspot_ray import cli
from textspot_ray.errors import ExitCode


def test_every_command_has_its_module_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in cli.GROUPS.values():
        for name in group:
            assert cli.main([name, "--help"]) == ExitCode.OK
            assert f"textspot {name}" in capsys.readouterr().out


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == ExitCode.OK
    text = capsys.readouterr().out
    for group in cli.GROUPS.values():
        for name, command in group.items():
            assert name in text
            assert command.help in text


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == ExitCode.USAGE


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verfy", "x"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "textspot: no command 'verfy'; did you mean verify?\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "x"], "no SOURCE given"),
        (["run", "photos"], "no output folder given"),
        (["run", "photos", "--out", "x", "--set", "engine.kin=ray"], "did you mean engine.kind"),
    ],
)
def test_mistakes_are_one_line_without_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from textspot_ray import cli; cli.main(['--help']); "
        "heavy = {'ray', 'openvino', 'cv2', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_options_and_operands_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "a", "--limit", "3", "b", "--set", "engine.kin=ray"]) == ExitCode.USAGE
    assert "engine.kind" in capsys.readouterr().err, "both operands were taken"
    assert cli.main(["search", "nowhere", "--fuzzy", "1", "exit"]) == ExitCode.USAGE
    assert "unrecognized" not in capsys.readouterr().err
