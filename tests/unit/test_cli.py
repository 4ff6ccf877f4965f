"""The command line's front door: help, unknown commands, faults as one line, lazy imports."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

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


def run_cli(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "textspot_ray", *arguments], capture_output=True, **settings
    )


def test_a_reader_that_has_gone_is_no_fault() -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "textspot_ray", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()
    assert started.stderr.read() == b""
    assert started.wait() == ExitCode.OK


def test_terminals_of_any_encoding_show_names_and_messages() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_cli("query", "/nowhere/日本é", "SELECT 1", env=environment)
    assert done.returncode == ExitCode.USAGE
    assert b"\\u65e5" in done.stderr and done.stderr.count(b"\n") == 1


def test_faults_of_ours_are_one_line_and_never_look_like_no_hits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textspot_ray.commands import files

    def broken(_: object) -> int:
        raise RuntimeError("a\nb\x1b[31m")

    monkeypatch.setattr(files, "main", broken)
    assert cli.main(["files", "x"]) == ExitCode.ABORTED
    shown = capsys.readouterr().err
    assert shown == (
        "textspot: internal error: RuntimeError: a b\\x1b[31m (TEXTSPOT_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("TEXTSPOT_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli.main(["files", "x"])


@pytest.mark.parametrize("port", ["99999", "-1", "x"])
def test_ports_are_checked(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["browse", "x", "--port", port]) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "run"]) == ExitCode.OK
    assert "usage: textspot run" in capsys.readouterr().out
    assert cli.main(["help"]) == ExitCode.OK
    assert "make tables:" in capsys.readouterr().out
    assert cli.main(["help", "rnu"]) == ExitCode.USAGE
    assert "did you mean run?" in capsys.readouterr().err
