"""The command line's front door: help, unknown commands, faults as one line, lazy imports."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textspot_ray import cli
from textspot_ray.errors import ExitCode


def test_every_command_has_its_module_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in cli.GROUPS.values():
        for name in group:
            assert cli.main([name, "--help"]) == ExitCode.OK
            assert f"textspot {name}" in capsys.readouterr().out


def test_whatever_takes_a_uri_takes_its_storage_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name for group in cli.GROUPS.values() for name in group} - {"models"}
    for name in names:
        assert cli.main([name, "--help"]) == ExitCode.OK
        assert "--storage-options" in capsys.readouterr().out, name
    monkeypatch.setenv("TEXTSPOT_STORAGE_OPTIONS", "@/nowhere.yaml")
    for given in (["doctor", "--source", "s3://x/"], ["read", "s3://x/a.jpg"]):
        assert cli.main(given) == ExitCode.USAGE
        assert "@/nowhere.yaml: No such file" in capsys.readouterr().err


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
        (["run", "photos", "--out", "x", "--set", "slots=3"], "did you mean engine.slots?"),
        (["errors", "x", "--kind", "tmeout"], "no kind of failure 'tmeout'; did you mean timeout?"),
        (["compact", "x", "--memory", "lots"], "--memory takes a whole number, not 'lots'"),
        (["status", "x", "--watch", "often"], "--watch takes a number, not 'often'"),
        (["retry-failed", "x", "--kind", "qqq"], "no kind of failure 'qqq'; there are missing, "),
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


def test_a_reader_that_has_gone_does_not_change_how_a_command_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from textspot_ray.commands import files

    with (tmp_path / "out").open("w") as behind:

        class Gone(io.StringIO):
            def flush(self) -> None:
                raise BrokenPipeError

            def fileno(self) -> int:
                return behind.fileno()

        monkeypatch.setattr(files, "main", lambda _: ExitCode.FAILED_IMAGES)
        monkeypatch.setattr(sys, "stdout", Gone())
        assert cli.main(["files", "x"]) == ExitCode.FAILED_IMAGES


@pytest.mark.parametrize("port", ["99999", "-1", "x"])
def test_ports_are_checked(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["browse", "x", "--port", port]) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--precison", "int8"], "run: no option --precison; did you mean --precision?"),
        (["run", "--precison=int8"], "run: no option --precison; did you mean --precision?"),
        (["run", "--precision", "int9"], "run: --precision cannot be 'int9'; did you mean int8?"),
        (["run", "--engine", "xyzzy"], "run: --engine cannot be 'xyzzy': one of ray, local"),
        (["run", "--limit", "many"], "run: --limit takes a whole number, not 'many'"),
        (["run", "--sample", "half"], "run: --sample takes a number, not 'half'"),
        (["export", "t", "-f", "pdff"], "export: --format cannot be 'pdff'; did you mean pdf?"),
        (["export", "t"], "export: missing --format/-f"),
        (["search"], "search: missing DIR"),
        (["files", "a", "b"], "files: too many arguments: b"),
        (["models", "fecth"], "models: ACTION cannot be 'fecth'; did you mean fetch?"),
        (["models", "check", "--precison", "x"], "models: no option --precison"),
        (["stats", "t", "--top", "0"], "stats: --top: 0 is not at least 1"),
        (["run", "--qui"], "run: no option --qui"),
    ],
)
def test_wrong_options_are_one_line_that_names_the_nearest(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert shown.startswith(f"textspot {line}")
    assert shown.count("\n") == 1 and len(shown) <= 160
    assert "(textspot help " in shown


def test_no_model_of_that_name_names_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["run", str(tmp_path), "--out", str(tmp_path / "t"), "--model", "ppocr6-small"]
    assert cli.main(arguments) == ExitCode.USAGE
    assert "did you mean ppocrv6-small?" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
    assert cli.main(["models", "fetch", "text-spoting-0005"]) == ExitCode.USAGE
    assert "did you mean text-spotting-0005?" in capsys.readouterr().err


def test_examples_keep_their_lines_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in cli.GROUPS.values():
        for name in group:
            module = importlib.import_module(f"textspot_ray.{group[name].module}")
            examples = [ln for ln in (module.__doc__ or "").splitlines() if ln.startswith("    ")]
            assert cli.main(["help", name]) == ExitCode.OK
            shown = capsys.readouterr().out.splitlines()
            assert set(examples) <= set(shown)
            assert examples or name not in ("read", "run", "search", "query", "export", "view")


def completions(line: str) -> set[str]:
    """What a shell is offered behind a line, by argcomplete's own protocol."""
    pytest.importorskip("argcomplete")
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "_ARGCOMPLETE_IFS": "\n"}
    out, file = os.pipe()
    environment = {**os.environ, **asked, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    code = f"import os; os.dup2({file}, 8); from textspot_ray.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=environment, pass_fds=[file], check=True)
    os.close(file)
    with os.fdopen(out) as stream:
        return set(stream.read().split())


def test_shells_complete_commands_options_and_values() -> None:
    assert completions("textspot sea") == {"search"}
    assert {"--precision"} == completions("textspot run --prec")
    assert completions("textspot plan --engine ") == {"ray", "local"}
    assert "ppocrv6-small" in completions("textspot run --model ppocrv6")
    assert "engine.threads=" in completions("textspot run --set engine.thr")
    assert completions("textspot models f") == {"fetch"}


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": ""}])
def test_nothing_but_text_where_no_terminal_is(variable: dict[str, str], tmp_path: Path) -> None:
    environment = {key: os.environ[key] for key in os.environ if "COLOR" not in key} | variable
    for arguments in (["help", "run"], ["run", "--precison", "x"], ["models", "list"]):
        done = run_cli(*arguments, env=environment)
        assert done.stdout + done.stderr, arguments
        assert b"\x1b" not in done.stdout + done.stderr


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "run"]) == ExitCode.OK
    assert "usage: textspot run" in capsys.readouterr().out
    assert cli.main(["help"]) == ExitCode.OK
    assert "make tables:" in capsys.readouterr().out
    assert cli.main(["help", "models", "fetch"]) == ExitCode.OK
    assert "usage: textspot models fetch" in capsys.readouterr().out
    assert cli.main(["help", "rnu"]) == ExitCode.USAGE
    assert "did you mean run?" in capsys.readouterr().err
