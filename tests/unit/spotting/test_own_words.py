"""A user's own list of words."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import textspot_ray as ts
from textspot_ray.cli import main
from textspot_ray.config import config_from_dict, redactor_of
from textspot_ray.engine.run import run
from textspot_ray.errors import ConfigError, FingerprintError
from textspot_ray.spotting import own_words
from textspot_ray.spotting.dictionary import OWN_ODDS, Dictionary, Slips
from textspot_ray.spotting.own_words import read_own_words, words_sha256
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import TextSpotter


def test_words_are_listed_as_readings_are_weighed(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    text = "\ufeffOrchard  (Müller)\nStraße;AB-02,Road|1,500\n\nO'Brien ab -- 4711, 東京都庁"
    file.write_text(text, encoding="utf-8")
    wanted = {"orchard", "muller", "strasse", "ab02", "road", "1500", "obrien", "4711"}
    assert read_own_words(str(file)) == read_own_words(file.as_uri()) == wanted


def test_what_is_no_list_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "words.txt"
    with pytest.raises(ConfigError, match=r"words\.txt cannot be read \(No such file"):
        read_own_words(str(file))
    with pytest.raises(ConfigError, match=r"gopher://x cannot be read \(.*gopher"):
        read_own_words("gopher://x")
    with pytest.raises(ConfigError, match=r"words must name a file"):
        config_from_dict({"model": {"words": " "}})
    file.write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=r"words\.txt is no UTF-8 text"):
        read_own_words(str(file))
    with pytest.raises(ConfigError, match=r"zip://a\.txt::.*cannot be read \("):
        read_own_words(f"zip://a.txt::{file}")  # no zip
    file.write_text("a bc -- 東京都庁\n")
    with pytest.raises(ConfigError, match=r"words\.txt holds no word of 3"):
        read_own_words(str(file))
    monkeypatch.setattr(own_words, "MOST_BYTES", 5)
    file.write_text("orchard")
    with pytest.raises(ConfigError, match=r"words\.txt is larger than"):
        read_own_words(str(file))


def test_no_secret_of_its_address_is_told() -> None:
    address = "http://user:secretpw@127.0.0.1:9/w.txt?sig=abcdef"
    with pytest.raises(ConfigError) as caught:
        read_own_words(address)
    assert "127.0.0.1" in str(caught.value)
    assert "secretpw" not in str(caught.value) and "abcdef" not in str(caught.value)
    blanked = redactor_of(config_from_dict({"model": {"words": address}}))
    assert "secretpw" not in blanked("GET with secretpw failed")


def test_a_likelier_word_of_the_language_does_not_crowd_out_the_users() -> None:
    dictionary = Dictionary(frozenset({"bat", "bet"}), 8.0, frozenset({"bot"}), 64.0)
    slips = Slips([{}, {"a": -1.0, "e": -1.2, "o": -1.6}, {}], [{}] * 4, [-20.0] * 3)
    assert list(dictionary.similar("bxt", slips, -6.0)) == ["bot", "bat"]


def test_own_words_count_for_more_than_those_of_a_language() -> None:
    dictionary = Dictionary(frozenset({"bat"}), 8.0, frozenset({"bet"}), 64.0)
    likelihoods = {"bxt": 0.4, "bat": 0.1, "bet": 0.02}
    weights = dictionary.weigh("bxt", likelihoods)
    whole = 1 + 7 * 0.1 + 63 * 0.02
    assert weights == pytest.approx({"bxt": 0.4 / whole, "bat": 0.8 / whole, "bet": 1.28 / whole})
    # what a listed word must have, of a reading's likelihood, to be of any weight beside it
    assert [dictionary.share(text) for text in ("bxt", "bat", "bet")] == pytest.approx(
        [1 / 64 / 3, 8 / 64 / 3, 1 / 3]
    )


def test_the_words_and_not_their_file_are_part_of_what_a_table_has_in_common(
    tmp_path: Path,
) -> None:
    prints = []
    for name, text in (("a", "Orchard Road"), ("b", "ROAD\norchard"), ("c", "Orchard Roads")):
        (tmp_path / name).write_text(text)
        words = read_own_words(str(tmp_path / name))
        prints.append(result_fingerprint(resolve(SpotterSettings(words=words))))
    assert prints[0] == prints[1] != prints[2]
    digest = words_sha256(frozenset({"orchard", "road"}))[:8]
    assert prints[0]["words"] == f"2 words {digest}, odds {OWN_ODDS:g} below 0.9"
    assert "dictionary" in prints[0]
    assert "words" not in result_fingerprint(resolve(SpotterSettings()))


def test_a_job_goes_by_the_words_and_a_table_keeps_to_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "empty.png"), np.full((64, 64, 3), 150, np.uint8))
    (tmp_path / "words.txt").write_text("Orchard\n")

    def spot(words: str | None) -> None:
        run(
            config_from_dict(
                {
                    "source": {"uris": [str(tmp_path / "empty.png")]},
                    "model": {"words": words},
                    "engine": {"kind": "local"},
                    "output": {"uri": str(tmp_path / "out")},
                }
            )
        )

    spot(str(tmp_path / "words.txt"))
    (tmp_path / "words.txt").rename(tmp_path / "moved.txt")
    spot(str(tmp_path / "moved.txt"))  # the same words
    with pytest.raises(FingerprintError, match="words"):
        spot(None)
    with pytest.raises(ConfigError, match=r"words\.txt cannot be read"):
        spot(str(tmp_path / "words.txt"))


def test_every_way_in_takes_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, picture = tmp_path / "words.txt", str(tmp_path / "empty.png")
    cv2.imwrite(picture, np.full((64, 64, 3), 150, np.uint8))
    seen: list[frozenset[str]] = []
    made = TextSpotter.__init__

    def noted(self: TextSpotter, settings: SpotterSettings) -> None:
        seen.append(settings.words)
        made(self, settings)

    monkeypatch.setattr(TextSpotter, "__init__", noted)
    orchard, road = frozenset({"orchard"}), frozenset({"road"})
    file.write_text("Orchard")
    TextSpotter.load(words=file)
    TextSpotter.load(words=orchard)
    ts.read(picture, words=file)
    assert seen == [orchard] * 3
    file.write_text("Road")  # another list at the same place
    ts.read(picture, words=str(file))
    assert main(["read", picture, "--words", str(file)]) == 0
    assert seen[3:] in ([road], [road, road])  # the same spotter may serve both
    assert main(["doctor", "--set", f"model.words={file}", "--set", "engine.kind=local"]) in (0, 1)
    assert seen[-1] == road
    file.unlink()
    assert main(["read", picture, "--words", str(file)]) == 2
    assert "words.txt cannot be read" in capsys.readouterr().err
