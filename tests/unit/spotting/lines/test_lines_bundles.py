"""Bundles of lines that are wrong, and published models: one clear line each."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov
import pytest

from tests.support.lines_bundle import (
    dark,
    draw_line,
    stub_detector,
    stub_recognizer,
    write_lines_bundle,
)
from textspot_ray.cli import main
from textspot_ray.commands.run import model_line
from textspot_ray.errors import BundleError, ExitCode, MissingExtraError
from textspot_ray.spotting import ppocr
from textspot_ray.spotting.bundle import (
    BUNDLE_FILE,
    cache_folder,
    describe_files,
    read_spec,
    spec_text,
    write_spec,
)
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.family import family_of
from textspot_ray.spotting.settings import Resolved, SpotterSettings, resolve
from textspot_ray.spotting.spotter import TextSpotter


def check_graphs(resolved: Resolved) -> None:
    family_of(resolved.bundle.spec).check_graphs(resolved)


def _rewritten(folder: Path, model: ov.Model | None = None, part: str = "", **changes: Any) -> Path:
    """The bundle with another model for a part, described anew."""
    if model is not None:
        ov.save_model(model, str(folder / f"{part}.xml"), compress_to_fp16=False)
    names: dict[str, tuple[str, ...]] = {
        "detector": ("detector.xml", "detector.bin"),
        "recognizer": ("recognizer.xml", "recognizer.bin"),
    }
    if (folder / "characters.txt").exists():
        names["characters"] = ("characters.txt",)
    spec = read_spec(folder / BUNDLE_FILE)
    write_spec(folder, replace(spec, precisions={"f32": describe_files(folder, names)}, **changes))
    return folder


def _refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as refused:
        check_graphs(resolve(SpotterSettings(str(folder))))
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_sound_bundle_passes(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "lines")
    check_graphs(resolve(SpotterSettings(str(folder))))
    spec = read_spec(folder / BUNDLE_FILE)
    assert spec_text(spec) == (folder / BUNDLE_FILE).read_text(encoding="utf-8")


def test_a_recogniser_without_its_character_list(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "lines")
    (folder / "characters.txt").unlink()
    message = _refusal(_rewritten(folder))
    assert "recognizer.xml has no character list" in message and "characters.txt" in message


def test_another_models_character_list(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "lines")
    (folder / "characters.txt").write_text("a\nb\n")
    assert "its character list gives 4 " in _refusal(_rewritten(folder))


def test_foreign_graphs_in_place_of_the_parts(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "one")
    message = _refusal(_rewritten(folder, stub_recognizer(), "detector"))
    assert "detector.xml is not a text-line detector" in message
    folder = write_lines_bundle(tmp_path / "two")
    (folder / "characters.txt").unlink()  # what it is comes before what it lacks
    message = _refusal(_rewritten(folder, stub_detector(), "recognizer"))
    assert "recognizer.xml is not a CTC recogniser" in message


def test_an_alphabet_that_the_recogniser_lacks(tmp_path: Path) -> None:
    folder = _rewritten(write_lines_bundle(tmp_path / "lines"), alphabet="ЖЩ")
    assert "knows no character of the alphabet 'ЖЩ'" in _refusal(folder)


def test_logits_instead_of_probabilities_read_the_same(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "lines")
    image = dark()
    draw_line(image, "abc", 100, 60, 40)
    before = TextSpotter.load(str(folder), threads=1)(image)
    _rewritten(folder, stub_recognizer(softmax=False), "recognizer")
    assert TextSpotter.load(str(folder), threads=1)(image) == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("family: lines", "family: pages", "family must be spotting or lines"),
        ("unclip_ratio: 0.2", "unclip_ratio: much", "lines.unclip_ratio: expected `float`"),
        ("unclip_ratio: 0.2", "unclip: 0.2", "unknown key lines.unclip"),
        ("shortest_side: 320", "shortest_side: 0", "lines.shortest_side: expected `int` >= 32"),
        ("  mean:\n  - 127.5\n", "  mean:\n", r"lines.mean: expected `array` of length 3, got 2"),
        ("  std:\n  - 127.5\n", "  std:\n  - 0\n", r"lines.std\[0\]: expected `float` >= 0.001"),
        ("channels: bgr", "channels: gbr", "lines.channels: invalid .*; one of bgr, rgb"),
        ("dilate: true", "dilate: 2", "lines.dilate: expected `bool`"),
        ("    recognizer:", "    reader:", "must be of detector, recognizer"),
        ("family: lines", "family: spotting", "lines must hold the rules"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, old: str, new: str, said: str) -> None:
    folder = write_lines_bundle(tmp_path / "lines")
    path = folder / BUNDLE_FILE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BundleError, match=said):
        load_bundle(str(folder))


FILES = {
    "detector": "det/det.onnx",
    "recognizer": "rec/rec.onnx",
    "classifier": "cls/cls.onnx",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of a published model ``ppocrv6-small``, and no package."""
    folder = tmp_path / "shop"
    facts: dict[str, Any] = {"reads": "all"}
    for part, path in FILES.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(part.encode())
        facts[part] = {"path": path, "sha256": hashlib.sha256(part.encode()).hexdigest()}
    monkeypatch.setattr(
        ppocr,
        "_facts",
        lambda: {
            "root": folder.as_uri(),
            "release": "1",
            "publisher": "us",
            "licence": "MIT",
            "package": "no_such_package",
            "models": {"ppocrv6-small": facts},
        },
    )
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_model_is_fetched_from_a_folder(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match=r"models fetch ppocrv6-small, or pip install"):
        load_bundle("ppocrv6-small")
    assert main(["models", "fetch", "ppocrv6-small", "--from", str(shop)]) == ExitCode.OK
    assert "checksums right, licence MIT" in capsys.readouterr().out
    bundle = load_bundle("ppocrv6-small")
    assert bundle.spec.family == "lines" and bundle.spec.default_precision == "auto"
    bundle.verify("f32")
    assert main(["models", "list"]) == ExitCode.OK
    assert "licence: MIT; from us" in capsys.readouterr().out
    (bundle.folder / "rec.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="its sha256"):
        bundle.verify("f32")
    assert main(["models", "fetch", "ppocrv6-small", "--from", str(shop)]) == ExitCode.OK
    bundle.verify("f32")


def test_files_that_are_not_the_published_ones_are_refused(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "rec" / "rec.onnx").write_bytes(b"other")
    assert main(["models", "fetch", "ppocrv6-small", "--from", str(shop)]) == ExitCode.USAGE
    assert "rec.onnx differs from the published one" in capsys.readouterr().err
    shutil.rmtree(shop / "rec")
    assert main(["models", "fetch", "ppocrv6-small", "--from", str(shop)]) == ExitCode.USAGE
    assert "rec.onnx is not there" in capsys.readouterr().err
    assert not (cache_folder() / "models" / "ppocrv6-small" / BUNDLE_FILE).exists()
    assert main(["models", "fetch", "ppocrv6-small", "--weights", "FP16"]) == ExitCode.USAGE
    assert "leave --weights out" in capsys.readouterr().err


def test_the_package_that_ships_a_model_is_used_as_it_is(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingExtraError, match="ppocr"):
        ppocr.fetch_lines("ppocrv6-small", origin="no_such_package")
    package = tmp_path / "site" / "no_such_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    assert ppocr.installed_bundle("ppocrv6-small") is None  # the files are not in it
    for path in FILES.values():
        shutil.copy(shop / path, package / "models")
    bundle = load_bundle("ppocrv6-small")
    assert bundle.folder == package / "models" and bundle.model == "ppocrv6-small"
    bundle.verify("f32")
    folder = ppocr.fetch_lines("ppocrv6-small", origin="no_such_package")
    assert load_bundle("ppocrv6-small").folder == folder


def test_a_folder_of_models_needs_no_description(tmp_path: Path) -> None:
    described = write_lines_bundle(tmp_path / "described")
    folder = tmp_path / "plain"
    folder.mkdir()
    with pytest.raises(BundleError, match=r"no bundle.yaml, nor one \*det\*.onnx"):
        load_bundle(str(folder))
    for old, new in (("detector", "my_det"), ("recognizer", "my_rec")):
        for suffix in (".xml", ".bin"):
            shutil.copy(described / f"{old}{suffix}", folder / f"{new}{suffix}")
    shutil.copy(described / "characters.txt", folder / "dict.txt")
    bundle = load_bundle(str(folder))
    assert bundle.spec.name == "plain" and bundle.model == str(folder)
    bundle.verify("f32")
    check_graphs(resolve(SpotterSettings(str(folder), precision="f32")))
    shutil.copy(folder / "my_det.xml", folder / "other_det.xml")
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(str(folder))


def test_a_file_that_is_no_onnx(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    described = write_lines_bundle(tmp_path / "described")
    folder = tmp_path / "plain"
    folder.mkdir()
    for suffix in (".xml", ".bin"):
        shutil.copy(described / f"detector{suffix}", folder / f"my_det{suffix}")
    (folder / "my_rec.onnx").write_bytes(b"PK\x03\x04 some archive")
    assert _refusal(folder).endswith("my_rec.onnx is not an ONNX file")
    assert capfd.readouterr().err == ""  # where OpenVINO's other readers would have had their say
    (folder / "my_rec.onnx").write_bytes(b"\x08\x08cut short")
    assert "my_rec.onnx cannot be read: " in _refusal(folder)


def test_the_published_list_is_whole() -> None:
    names = ppocr.names()
    assert {"ppocrv6-tiny", "ppocrv6-small", "ppocrv6-medium", "ppocrv5-arabic"} <= set(names)
    for name in names:
        spec = ppocr.spec_of(name)
        assert model_line(spec, "bf16") == (
            f"model: {name} {spec.version} (bf16), reads {family_of(spec).limits(spec)[6:]}"
        )
        assert all(len(file.sha256) == 64 for file in spec.precisions["f32"].files())
