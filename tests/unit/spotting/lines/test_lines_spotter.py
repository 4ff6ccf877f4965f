"""The family lines end to end, on a bundle that reads colours."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.lines_bundle import RULES, dark, draw_line, write_lines_bundle
from textspot_ray.config import ImageConfig
from textspot_ray.errors import ConfigError
from textspot_ray.spotting.bundle import read_spec, write_spec
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import PageDetector, TextSpotter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_lines_bundle(tmp_path_factory.mktemp("models") / "lines"))


@pytest.fixture(scope="module")
def spotter(bundle: str) -> TextSpotter:
    return TextSpotter.load(bundle, threads=1)


def test_a_line_gives_its_words_where_they_are(spotter: TextSpotter) -> None:
    image = dark()
    x0, y0, x1, y1 = draw_line(image, "aab 12É.", 100, 60, 40)
    draw_line(image, "second", 300, 300, 30)
    words = spotter(image)
    assert [(w.text, w.line) for w in words] == [("aab", 0), ("12É.", 0), ("second", 1)]
    first, second, _ = words
    cell = 0.8 * 40
    assert first.box[0] == pytest.approx(x0, abs=6)
    assert first.box[2] == pytest.approx(x0 + 3 * cell, abs=12)
    assert second.box[0] == pytest.approx(x0 + 4 * cell, abs=12)
    assert second.box[2] == pytest.approx(x1, abs=6)
    assert first.box[1] == pytest.approx(y0, abs=3)
    assert first.box[3] == pytest.approx(y1, abs=3)
    for word in words:
        assert len(word.char_confidences) == len(word.text)
        assert 0.9 < word.text_confidence <= min(word.char_confidences)
        assert word.angle_deg == pytest.approx(0, abs=1)


def test_a_line_downwards_is_laid_upright(spotter: TextSpotter) -> None:
    image = dark(640, 480)
    draw_line(image, "up 7", 200, 100, 40)
    turned = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
    words = spotter(turned)
    assert [w.text for w in words] == ["up", "7"]
    assert all(w.angle_deg == pytest.approx(90, abs=1) for w in words)
    assert words[0].box[1] < words[1].box[1]  # the words follow each other downwards
    assert words[0].box[0] == pytest.approx(480 - 140, abs=4)


def test_a_slanted_line_has_slanted_words(spotter: TextSpotter) -> None:
    image = dark(900, 900)
    draw_line(image, "abc 789", 250, 430, 40)
    matrix = cv2.getRotationMatrix2D((450, 450), -20, 1)
    words = spotter(cv2.warpAffine(image, matrix, (900, 900)))
    assert [w.text for w in words] == ["abc", "789"]
    assert all(w.angle_deg == pytest.approx(20, abs=1.5) for w in words)


def test_an_alphabet_cuts_what_is_read(bundle: str) -> None:
    image = dark()
    draw_line(image, "ab12", 100, 60, 40)
    settings = SpotterSettings(bundle, alphabet="ab")
    text = "".join(w.text for w in TextSpotter(settings)(image))
    assert text.startswith("ab")
    assert set(text) == set("ab")
    assert result_fingerprint(resolve(settings, verify=False))["alphabet"] == "ab"
    assert result_fingerprint(resolve(SpotterSettings(bundle), verify=False))["alphabet"] == "all"
    with pytest.raises(ConfigError, match="cannot be cut"):
        result_fingerprint(resolve(SpotterSettings("embedded", alphabet="latin"), verify=False))


def test_every_rule_is_in_the_fingerprint(tmp_path: Path) -> None:
    base = result_fingerprint(
        resolve(SpotterSettings(str(write_lines_bundle(tmp_path / "base"))), verify=False)
    )
    changed: dict[str, Any] = {
        "shortest_side": 640,
        "longest_side": 960,
        "mean": (100.0, 110.0, 120.0),
        "std": (50.0, 60.0, 70.0),
        "binarize_threshold": 0.4,
        "unclip_ratio": 0.3,
        "dilate": False,
        "word_height": 0.7,
        "space_threshold": 0.2,
        "tile_factor": 2.0,
    }
    for key, value in changed.items():
        rules = replace(RULES, **{key: value})
        folder = write_lines_bundle(tmp_path / key, rules)
        assert result_fingerprint(resolve(SpotterSettings(str(folder)), verify=False)) != base, key


def test_words_that_are_joined_are_in_the_fingerprint(tmp_path: Path) -> None:
    folder = write_lines_bundle(tmp_path / "b")
    settings = SpotterSettings(str(folder))
    assert "split_words" not in result_fingerprint(resolve(settings, verify=False))
    write_spec(folder, replace(read_spec(folder / "bundle.yaml"), dictionary="english"))
    letters = string.ascii_letters + string.digits
    for alphabet, joins in (("", True), ("latin", True), (letters, True), (letters[1:], False)):
        given = resolve(replace(settings, alphabet=alphabet or None), verify=False)
        assert ("split_words" in result_fingerprint(given)) == joins, alphabet
    own = replace(settings, dictionary=False, words=frozenset({"adjustment"}))
    assert "split_words" not in result_fingerprint(resolve(own, verify=False))


def test_small_lines_of_a_large_picture_are_found_in_tiles(bundle: str) -> None:
    image = dark(6000, 4000)
    draw_line(image, "tiny", 5000, 3500, 16)
    # ends in one tile's overlap, begins in the other: whole nowhere but in the whole picture
    long = "abcdefghijklmnopqrstuvwxyz0123456789 abcdefghijklmnopqrstuvwxyz"
    draw_line(image, long, 900, 900, 60)
    words = TextSpotter.load(bundle, threads=2)(image)
    assert [w.text for w in words][:1] == ["abcdefghijklmnopqrstuvwxyz0123456789"]
    assert "tiny" in [w.text for w in words]
    assert len(words) == 3


def test_pieces_of_a_line_that_no_pass_shows_whole_are_joined(tmp_path: Path) -> None:
    rules = replace(RULES, longest_side=640)
    folder = str(write_lines_bundle(tmp_path / "lines", rules))
    image = dark(6000, 1500)
    text = "abcdefghijklmnopqrstuvwxyz0123456789" * 3
    draw_line(image, text, 200, 700, 22)  # 2 px high in the whole picture: seen in tiles only
    words = TextSpotter.load(folder, threads=2, image=ImageConfig(tile_over=2.0))(image)
    assert [w.text for w in words] == [text]
    assert words[0].box[0] == pytest.approx(200, abs=12)
    assert words[0].box[2] == pytest.approx(200 + 0.8 * 22 * len(text), abs=12)


def test_a_long_receipt_is_read_at_its_own_size(bundle: str) -> None:
    image = dark(300, 6000)
    for row in range(12):
        draw_line(image, f"row{row}", 40, 100 + 490 * row, 18)  # 4 px in the picture as a whole
    result = TextSpotter.load(bundle, threads=2).spot(image)
    assert [w.text for w in result.words] == [f"row{row}" for row in range(12)]
    assert result.info is not None and result.info.tiles > 5


def test_pages_of_small_print_are_looked_at_more_closely(tmp_path: Path) -> None:
    folder = str(write_lines_bundle(tmp_path / "lines", zoom_below=12))
    for height, closer in ((16, True), (40, False)):
        image = dark(2400, 1600)
        wanted = []
        for row in range(60):
            wanted.append(f"row{row}")
            draw_line(image, wanted[-1], 60 + 800 * (row % 3), 40 + 75 * (row // 3), height)
        result = TextSpotter.load(folder, threads=2).spot(image)
        assert result.info is not None and (result.info.tiles > 1) is closer
        assert sorted(w.text for w in result.words) == sorted(wanted)


def test_more_lines_than_fit_into_memory_are_told(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textspot_ray.spotting.lines.strips.MAX_COLUMNS", 300)
    image = dark()
    for row in range(4):
        draw_line(image, f"row{row}", 40, 40 + 100 * row, 40)
    result = TextSpotter.load(bundle, threads=1).spot(image)
    assert len(result.words) == 1
    assert result.info is not None and result.info.saturated


def test_features_travel_with_their_sizes(bundle: str) -> None:
    image = dark()
    draw_line(image, "abc", 100, 60, 40)
    draw_line(image, "abcdefgh", 100, 160, 40)
    pages = PageDetector(SpotterSettings(bundle))
    detected, features = pages.detect(cv2.imencode(".png", image)[1].tobytes())
    assert len(features) == len(detected.detections) == 2
    assert detected.feature_bytes == features.nbytes == 48 * 3 * (128 + 288)
    assert not detected.info.saturated  # type: ignore[union-attr]


def test_a_picture_without_text_has_no_words(spotter: TextSpotter) -> None:
    assert spotter(dark(300, 200)) == []
    assert spotter(dark(2000, 3)) == []
    assert spotter(np.zeros((1, 1, 3), np.uint8)) == []
