"""Pages from bytes: words where they were painted, tiles, faults as values."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.config import ImageConfig
from textspot_ray.errors import TextspotError, UsageError
from textspot_ray.records import DetectedPage, ErrorKind, Item, Readings, Stage, Status
from textspot_ray.spotting import spotter
from textspot_ray.spotting.bundle import BUNDLE_FILE, read_spec, write_spec
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, TextSpotter, assemble


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stub_bundle(tmp_path_factory.mktemp("models") / "stub")


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize(("max_rows", "is_saturated"), [(1, True), (2, False)])
def test_the_detectors_limit_of_rows_is_told(
    tmp_path: Path, max_rows: int, is_saturated: bool
) -> None:
    folder = write_stub_bundle(tmp_path / "stub")
    spec = replace(read_spec(folder / BUNDLE_FILE), max_rows=max_rows)
    write_spec(folder, spec)
    detected, _ = PageDetector(SpotterSettings(str(folder))).detect(encoded(draw({3: "one"})))
    assert detected.info is not None
    assert detected.info.saturated is is_saturated


def test_page_account(stub: Path) -> None:
    pages = PageDetector(SpotterSettings(str(stub)))
    detected, features = pages.detect(encoded(draw({3: "one", 70: "two"}), ".jpg"))
    assert detected.error is None
    assert detected.info is not None
    assert (detected.info.width, detected.info.height, detected.info.tiles) == (1280, 768, 1)
    assert detected.info.format == "jpeg"
    assert len(detected.detections) == len(features) == 2
    assert detected.decode_s > 0
    assert detected.detect_s > 0


@pytest.mark.parametrize("data", [b"", b"no image", encoded(draw({}))[:-40]])
def test_bad_bytes_are_an_error_value(stub: Path, data: bytes) -> None:
    detected, features = PageDetector(SpotterSettings(str(stub))).detect(data)
    assert detected.error is not None
    assert detected.error.stage is Stage.DECODE
    assert detected.detections == ()
    assert features.shape == (0, 64, 28, 28)
    result = assemble(Item("x", "x"), 0, detected, None)
    assert result.status is Status.FAILED
    assert result.words == ()


def test_a_failing_inference_is_an_error_value(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = PageDetector(SpotterSettings(str(stub)))

    def broken(window: np.ndarray, **_: object) -> None:
        raise RuntimeError("could not\ninfer")

    monkeypatch.setattr(
        pages._regions._detector,  # type: ignore[attr-defined]
        "detect",
        broken,
    )
    detected, _ = pages.detect(encoded(draw({})))
    assert detected.error is not None
    assert (detected.error.stage, detected.error.kind) == (Stage.DETECT, ErrorKind.INTERNAL)
    assert detected.error.message == "could not infer"


def test_boxes_without_text_are_counted(stub: Path) -> None:
    from textspot_ray.spotting.composite.recognizer import Recognizer

    detected, features = PageDetector(SpotterSettings(str(stub))).detect(
        encoded(draw({0: "a", 1: "", 2: ""}))
    )
    readings = Recognizer(SpotterSettings(str(stub))).read(features)
    result = assemble(Item("x", "x"), 0, detected, readings)
    assert [w.text for w in result.words] == ["a"]
    assert result.n_unread == 2
    assert result.status is Status.WORDS


def test_rows_must_match(stub: Path) -> None:
    detected, _ = PageDetector(SpotterSettings(str(stub))).detect(encoded(draw({0: "a"})))
    with pytest.raises(ValueError, match="zip"):
        assemble(Item("x", "x"), 0, detected, Readings(()))


def test_small_images_by_rule_get_no_words(stub: Path) -> None:
    rules = ImageConfig(min_side=800)
    detected, _ = PageDetector(SpotterSettings(str(stub), image=rules)).detect(
        encoded(draw({0: "a"}))
    )
    assert detected.detections == ()
    assert detected.info is not None
    assert detected.info.tiles == 0


@pytest.mark.parametrize(("tiles", "passes"), [("auto", 3), ("all", 5)])
def test_tiled_image_reads_what_shrinking_would_lose(stub: Path, tiles: str, passes: int) -> None:
    """Each tile is a whole lattice of the stub, so what a tile shows is what it must read.

    Two of the four are black: without a map of scores, `auto` leaves out those alone.
    """
    over = ImageConfig(tiles=tiles, tile_over=1.0, tile_overlap=0.0)
    picture = np.zeros((768 * 2, 1280 * 2, 3), np.uint8)
    picture[:768, :1280] = draw({10: "northw"})
    picture[768:, 1280:] = draw({20: "southe", 93: "edge"})
    pages = PageDetector(SpotterSettings(str(stub), image=over))
    detected, features = pages.detect(encoded(picture))
    assert detected.info is not None
    assert detected.info.tiles == passes
    from textspot_ray.spotting.composite.recognizer import Recognizer

    readings = Recognizer(SpotterSettings(str(stub))).read(features)
    words = {w.text: w.box for w in assemble(Item("x", "x"), 0, detected, readings).words}
    assert {"northw", "southe", "edge"} <= set(words)
    assert words["northw"] == pytest.approx((320, 64, 480, 128), abs=0.5)
    assert words["southe"] == pytest.approx((1280 + 640, 768 + 128, 1280 + 800, 768 + 192), abs=0.5)


def test_features_beyond_a_limit_are_on_disk_and_the_same(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.zeros((768 * 2, 1280 * 2, 3), np.uint8)
    picture[:768, :1280] = draw({10: "northw"})
    picture[768:, 1280:] = draw({20: "southe", 93: "edge"})
    rules = ImageConfig(tiles="all", tile_over=1.0, tile_overlap=0.0)
    data = encoded(picture)

    def detect() -> tuple[DetectedPage, np.ndarray]:
        page, features = PageDetector(SpotterSettings(str(stub), image=rules)).detect(data)
        return replace(page, decode_s=0.0, detect_s=0.0), features

    page, features = detect()
    assert len(features) >= 3
    opened = []

    def spy(**options: Any) -> Any:
        opened.append(options)
        return real(dir=tmp_path, **options)

    real = tempfile.TemporaryFile
    monkeypatch.setattr(spotter.tempfile, "TemporaryFile", spy)
    monkeypatch.setattr(spotter, "FEATURES_IN_MEMORY", 0)
    on_disk, rows = detect()
    assert len(opened) == 1
    assert on_disk == page and np.array_equal(rows, features)

    def full(**options: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spotter.tempfile, "TemporaryFile", full)
    in_memory, rows = detect()
    assert in_memory == page and np.array_equal(rows, features)


def test_large_jpegs_read_alike_at_reduced_scale(stub: Path) -> None:
    picture = cv2.resize(draw({5: "scaled", 60: "decode"}), (1280 * 5, 768 * 5))
    rules = ImageConfig(tiles="off")
    spotter = TextSpotter.load(str(stub), image=rules, threads=1)
    for suffix in (".jpg", ".png"):
        words = {w.text: w.box for w in spotter(encoded(picture, suffix))}
        assert set(words) == {"scaled", "decode"}
        assert words["scaled"] == pytest.approx((800 * 5, 0, 960 * 5, 64 * 5), abs=1)


def test_blank_and_tiny_images(stub: Path) -> None:
    spotter = TextSpotter.load(str(stub), threads=1)
    for shape in ((768, 1280, 3), (1, 1, 3), (8000, 20, 3), (20, 8000, 3)):
        assert spotter(np.full(shape, 255, np.uint8) * 0) == []


def test_users_mistakes_are_one_line(stub: Path, tmp_path: Path) -> None:
    spotter = TextSpotter.load(str(stub), threads=1)
    with pytest.raises(UsageError, match=r"cannot read .*none\.jpg: No such file"):
        spotter(tmp_path / "none.jpg")
    with pytest.raises(UsageError, match=r"must be H x W \(x 3 or 4\) uint8, not \(5, 5\) float64"):
        spotter(np.zeros((5, 5)))  # type: ignore[arg-type]
    (tmp_path / "bad.jpg").write_bytes(b"hello")
    with pytest.raises(UsageError, match=r"cannot spot .*bad\.jpg: not an image"):
        spotter(tmp_path / "bad.jpg")


def test_a_spotter_from_before_a_fork_says_so_and_a_fresh_one_works(stub: Path) -> None:
    # in a process of its own: a fork of this one would have all that the other tests left
    program = f"""
import multiprocessing, sys
import numpy as np
from textspot_ray.errors import TextspotError, UsageError
from textspot_ray.spotting.spotter import TextSpotter

blank = np.zeros((64, 64, 3), np.uint8)
spotter = TextSpotter.load({str(stub)!r}, threads=1)
spotter(blank)

def child():
    try:
        spotter(blank)
    except UsageError as exc:
        assert "load it in the child" in str(exc), exc
        sys.exit(len(TextSpotter.load({str(stub)!r}, threads=1)(blank)))
    sys.exit(7)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
sys.exit(process.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_second_load_in_a_process_compiles_nothing(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path))
    try:
        TextSpotter.load("embedded", threads=1, precision=precision)
    except TextspotError:  # a CPU without bf16
        pytest.skip(f"no {precision} here")
    kept = sorted(tmp_path.rglob("*.blob"))
    assert len(kept) == 4  # detector, encoder, decoder's step, augmentation
    TextSpotter.load("embedded", threads=1, precision=precision)
    assert sorted(tmp_path.rglob("*.blob")) == kept
