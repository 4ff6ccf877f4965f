"""``textspot models``: what it lists, what it says of damaged bundles, what it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.cli import main
from textspot_ray.errors import ExitCode
from textspot_ray.spotting.bundle import BUNDLE_FILE, write_spec
from textspot_ray.spotting.catalogue import load_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stub_bundle(tmp_path_factory.mktemp("models") / "stub")


@pytest.fixture
def stub(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "stub"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list_shows_accuracy_and_licence(
    stub: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    folder = cache / "models" / "text-spotting-0003"
    shutil.copytree(stub, folder)
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, accuracy={"hmean on ICDAR2015": "64.81 %"}))
    assert main(["models", "list"]) == ExitCode.OK
    blocks = {
        block.split("\n", 1)[0]: block
        for block in ("\n" + capsys.readouterr().out).replace("\n  ", "\r").split("\n")
        if block
    }
    here = blocks[next(k for k in blocks if k.startswith("text-spotting-0003"))]
    assert "hmean on ICDAR2015: 64.81 %" in here
    assert "licence: Apache-2.0" in here
    assert str(folder) in here
    missing = next(block for name, block in blocks.items() if name.startswith("text-spotting-0005"))
    assert "not here yet: textspot models fetch text-spotting-0005" in missing


def test_check_runs_an_image(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "check", str(stub)]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "stub: files and checksums are right (f32)" in out
    assert "compiles, and finds" in out


def truncate(folder: Path) -> None:
    file = folder / "detector.bin"
    file.write_bytes(file.read_bytes()[:-100])


def restate(folder: Path, **parts: str) -> None:
    """Describe the folder anew, so that checksums are right and only the contents are wrong."""
    from dataclasses import replace

    from textspot_ray.spotting.bundle import describe_files

    names = {p: (f"{p}.xml", f"{p}.bin") for p in ("detector", "encoder", "decoder")}
    names |= {p: (f"{other}.xml", f"{other}.bin") for p, other in parts.items()}
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, precisions={"f32": describe_files(folder, names)}))


def truncated_but_stated(folder: Path) -> None:
    truncate(folder)
    restate(folder)


def swapped_parts(folder: Path) -> None:
    restate(folder, detector="encoder")


def decoder_for_encoder(folder: Path) -> None:
    restate(folder, encoder="decoder")


def no_model_at_all(folder: Path) -> None:
    (folder / "encoder.xml").write_text("<html>404</html>")
    restate(folder)


def foreign_xml(folder: Path) -> None:
    shutil.copy(folder / "decoder.xml", folder / "encoder.xml")
    restate(folder)


def other_alphabet(folder: Path) -> None:
    text = (folder / BUNDLE_FILE).read_text()
    (folder / BUNDLE_FILE).write_text(text.replace("abcdefgh", "abcdefg"))


DAMAGES = pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncate, "detector.bin is damaged"),
        (lambda folder: (folder / "encoder.xml").unlink(), "encoder.xml"),
        (lambda folder: (folder / BUNDLE_FILE).unlink(), "bundle.yaml"),
        (lambda folder: (folder / BUNDLE_FILE).write_text("a: ["), "bundle.yaml is not valid YAML"),
        (truncated_but_stated, "detector.xml cannot be read with detector.bin"),
        (swapped_parts, "encoder.xml: the image input is input [1, 64, 28, 28], wanted"),
        (decoder_for_encoder, "decoder.xml is not a recognizer encoder"),
        (no_model_at_all, "encoder.xml cannot be read"),
        (foreign_xml, "encoder.xml"),
        (other_alphabet, "decoder.xml yields 38 symbols, but the bundle's alphabet has 37"),
    ],
)


@DAMAGES
def test_check_of_a_damaged_bundle_is_one_line(
    stub: Path, capsys: pytest.CaptureFixture[str], damage: object, named: str
) -> None:
    damage(stub)  # type: ignore[operator]
    assert main(["models", "check", str(stub)]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("textspot: ")
    assert said.count("\n") == 1
    assert named in said


@DAMAGES
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_refuses_a_damaged_bundle_before_it_reads_or_writes(
    stub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    damage: object,
    named: str,
) -> None:
    def touched(*args: object) -> None:
        raise AssertionError("an image was listed or read")

    monkeypatch.setattr("textspot_ray.sources.listing.list_items", touched)
    monkeypatch.setattr("textspot_ray.sources.reader.Reader.read", touched)
    damage(stub)  # type: ignore[operator]
    out = tmp_path / "out"
    command = ["run", str(tmp_path), "--model", str(stub), "--engine", engine, "--out", str(out)]
    assert main(command) == ExitCode.USAGE
    said = capsys.readouterr().err.splitlines()  # the configuration, then the line
    (line,) = (line for line in said if line.startswith("textspot: "))
    assert line == said[-1] and named in line
    assert not out.exists()


def test_check_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "check", "text-spotting-0004"]) == ExitCode.USAGE
    assert "textspot models fetch text-spotting-0004" in capsys.readouterr().err
    assert main(["models", "check", "/no/such/folder"]) == ExitCode.USAGE
    assert "no model '/no/such/folder'" in capsys.readouterr().err


def test_fetch_from_a_folder_that_lacks_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["models", "fetch", "text-spotting-0003", "--from", str(tmp_path)])
    assert code == ExitCode.USAGE
    assert "text-spotting-0003-detector.xml is not there" in capsys.readouterr().err
