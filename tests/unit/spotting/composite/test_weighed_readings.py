"""Unsure readings are weighed by the bundle's list of words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from tests.support.stub_bundle import write_stub_bundle
from tests.unit.spotting.composite.test_augmentation import shifted, softmax, word
from textspot_ray.errors import BundleError
from textspot_ray.records import Reading
from textspot_ray.spotting import settings
from textspot_ray.spotting.bundle import describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.dictionary import OWN_ODDS, list_sha256
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint

ODDS = 8.0
WORDS = ("bab", "abab", "abaa", "bbaab")
A, B = 2, 3  # symbols of the stub; a value between two of them leaves it unsure
END = softmax(1.0)[1]  # the stub takes what is below 1 for the end


@pytest.fixture(autouse=True)
def _few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of words that the stub can read, in place of the package's."""
    monkeypatch.setattr(settings, "listed", lambda _: frozenset(WORDS))


def bundle(folder: Path, *, below: float = 0.9, shift: float | None = None) -> str:
    """The stub with the list, and perhaps two more cuts that are shifted so far."""
    write_stub_bundle(folder)
    names = {p: (f"{p}.xml", f"{p}.bin") for p in ("detector", "encoder", "decoder")}
    between = (0.0, 0.0)
    if shift is not None:
        graph = str(folder / "augmentation.xml")
        ov.save_model(shifted(shift, shift), graph, compress_to_fp16=False)
        names["augmentation"] = ("augmentation.xml", "augmentation.bin")
        between = (0.05, 0.9)
    files = describe_files(folder, names)
    spec = load_bundle(str(folder)).spec
    write_spec(
        folder,
        replace(
            spec,
            precisions={"f32": files},
            augment_between=between,
            dictionary="english",
            dictionary_odds=ODDS,
            dictionary_below=below,
        ),
    )
    return str(folder)


def read(model: str, features: np.ndarray, *, dictionary: bool = True) -> Reading:
    (reading,) = Recognizer(SpotterSettings(model, dictionary=dictionary)).read(features).readings
    return reading


def test_a_listed_word_that_is_nearly_as_likely_is_read(tmp_path: Path) -> None:
    unsure = word(2.0, 2.45, 2.55, 3.0)
    assert read(str(write_stub_bundle(tmp_path / "plain")), unsure).text == "aabb"
    reading = read(bundle(tmp_path / "b"), unsure)
    assert reading.text == "abab"
    own = [softmax(2.0)[A], softmax(2.45)[B], softmax(2.55)[A], softmax(3.0)[B]]
    assert reading.char_confidences == pytest.approx(own, abs=1e-6)
    likelihood = np.prod(own) * END
    weighed = likelihood * ODDS / (1 + (ODDS - 1) * likelihood)
    assert reading.confidence == pytest.approx(weighed, abs=1e-6)


def test_longer_and_shorter_words_are_read_to_their_own_end(tmp_path: Path) -> None:
    unsure = word(2.0, 3.0, 2.0, 1.42)  # the last is an "a" rather than the end, or the reverse
    assert read(str(write_stub_bundle(tmp_path / "plain")), unsure).text == "aba"
    reading = read(bundle(tmp_path / "longer"), unsure)
    assert (reading.text, len(reading.char_confidences)) == ("abaa", 4)
    assert reading.char_confidences[-1] == pytest.approx(softmax(1.42)[A], abs=1e-6)
    unsure = word(3.0, 2.0, 3.0, 1.58)
    assert read(str(write_stub_bundle(tmp_path / "other")), unsure).text == "baba"
    reading = read(bundle(tmp_path / "shorter"), unsure)
    assert (reading.text, len(reading.char_confidences)) == ("bab", 3)


def test_what_is_surely_read_stays(tmp_path: Path) -> None:
    listed = bundle(tmp_path / "b")
    plain = str(write_stub_bundle(tmp_path / "plain"))
    for features in (word(2.0, 2.0, 3.0), word(2.3, 2.0, 3.0)):  # surely "aab", and rather surely
        assert read(listed, features) == read(plain, features)
        assert read(listed, features).text == "aab"


def test_a_listed_reading_is_surer(tmp_path: Path) -> None:
    unsure = word(2.55, 2.0, 3.0)
    plain = read(str(write_stub_bundle(tmp_path / "plain")), unsure)
    reading = read(bundle(tmp_path / "b"), unsure)
    p = plain.confidence
    assert (reading.text, plain.text) == ("bab", "bab")
    assert reading.confidence == pytest.approx(p * ODDS / (1 + (ODDS - 1) * p))
    assert reading.char_confidences == plain.char_confidences


def test_only_readings_below_the_bundles_confidence_are_weighed(tmp_path: Path) -> None:
    unsure = word(2.45, 2.0, 3.0)
    plain = read(str(write_stub_bundle(tmp_path / "plain")), unsure)
    assert read(bundle(tmp_path / "b", below=plain.confidence), unsure) == plain
    assert read(bundle(tmp_path / "c", below=plain.confidence + 0.01), unsure).text == "bab"


def test_all_cuts_have_a_say(tmp_path: Path) -> None:
    # one cut alone would rather read "bab"; all three together are further from it
    unsure = word(2.4, 2.0, 3.0)
    model = bundle(tmp_path / "b", shift=-0.05)
    reading = read(model, unsure)
    symbol = (softmax(2.4) + 2 * softmax(2.35)) / 3
    others = [(softmax(v) + 2 * softmax(v - 0.05)) / 3 for v in (2.0, 3.0)]
    end = (END + 2 * softmax(0.95)[1]) / 3 if reading.text else 0.0
    assert reading.text == "bab"
    assert reading.char_confidences == pytest.approx(
        [symbol[B], others[0][A], others[1][B]], abs=1e-5
    )
    likelihood = float(np.prod(reading.char_confidences)) * end
    assert reading.confidence == pytest.approx(
        likelihood * ODDS / (1 + (ODDS - 1) * likelihood), abs=1e-3
    )


def test_neither_order_nor_threads_change_an_answer(tmp_path: Path) -> None:
    model = bundle(tmp_path / "b", shift=0.02)
    words = np.concatenate(
        [word(2.45, 2.0, 3.0), word(2.0), word(2.0, 2.45, 2.55, 3.0), word(2.5, 3.0, 2.0)] * 3
    )
    together = Recognizer(SpotterSettings(model, threads=3)).read(words).readings
    single = Recognizer(SpotterSettings(model))
    assert together == tuple(single.read(words[i : i + 1]).readings[0] for i in range(12))
    assert together[0].text == "bab"


def test_it_can_be_left_out(tmp_path: Path) -> None:
    unsure = word(2.45, 2.0, 3.0)
    model = bundle(tmp_path / "b")
    assert read(model, unsure).text == "bab"
    plain = read(str(write_stub_bundle(tmp_path / "plain")), unsure)
    assert read(model, unsure, dictionary=False) == plain


def test_a_users_words_weigh_readings_of_any_bundle(tmp_path: Path) -> None:
    unsure = word(2.0, 2.3, 2.45)  # an "a" rather than a "b", by more than the odds of the list
    plain = str(write_stub_bundle(tmp_path / "plain"))
    for model, dictionary in ((bundle(tmp_path / "b"), True), (plain, True), (plain, False)):
        assert read(model, unsure, dictionary=dictionary).text == "aaa"
        own = SpotterSettings(model, dictionary=dictionary, words=frozenset({"aba"}))
        (reading,) = Recognizer(own).read(unsure).readings
        assert reading.text == "aba"
        likelihood = softmax(2.0)[A] * softmax(2.3)[B] * softmax(2.45)[A] * END
        other = softmax(2.0)[A] * softmax(2.3)[A] * softmax(2.45)[A] * END
        weighed = likelihood * OWN_ODDS / (1 + (OWN_ODDS - 1) * likelihood)
        assert reading.confidence == pytest.approx(weighed, abs=1e-6)
        assert ODDS * likelihood < other < OWN_ODDS * likelihood


def test_it_is_part_of_what_a_table_has_in_common(tmp_path: Path) -> None:
    model = bundle(tmp_path / "b")
    used = result_fingerprint(resolve(SpotterSettings(model)))
    unused = result_fingerprint(resolve(SpotterSettings(model, dictionary=False)))
    assert used["dictionary"] == f"english {list_sha256('english')[:8]}, odds 8 below 0.9"
    assert "dictionary" not in unused
    folder = Path(model)
    write_spec(folder, replace(load_bundle(model).spec, number_formats="plates"))
    plates = result_fingerprint(resolve(SpotterSettings(model)))
    assert plates == used | {"number_formats": f"plates {list_sha256('plates')[:8]}"}
    assert result_fingerprint(resolve(SpotterSettings(model, dictionary=False))) == unused
    plain = str(write_stub_bundle(tmp_path / "plain"))
    prints = [
        result_fingerprint(resolve(SpotterSettings(plain, dictionary=on))) for on in (True, False)
    ]
    assert prints[0] == prints[1]


def test_a_list_that_the_package_lacks_is_named(tmp_path: Path) -> None:
    folder = Path(bundle(tmp_path / "b"))
    text = (folder / "bundle.yaml").read_text()
    (folder / "bundle.yaml").write_text(text.replace("dictionary: english", "dictionary: klingon"))
    with pytest.raises(BundleError, match=r"dictionary.*klingon"):
        resolve(SpotterSettings(str(folder)))
