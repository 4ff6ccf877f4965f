"""The teacher's alignment and word spans, without the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("torch")

from jobs.training.data import datasets
from jobs.training.data.datasets import PhotoWord, rect_corners
from jobs.training.teacher import label
from jobs.training.teacher.model import Symbol, mean_confidence, viterbi, word_spans
from textspot_ray.records import Word


def log_probabilities(path: list[int], symbols: int = 5) -> np.ndarray:
    found = np.full((len(path), symbols), 0.02)
    found[np.arange(len(path)), path] = 0.9
    return np.log(found)


def test_the_path_through_a_known_text_is_where_its_symbols_stand_out() -> None:
    # blank, a a, blank, b, blank, b (a blank must part equal symbols)
    path = viterbi(log_probabilities([0, 1, 1, 0, 2, 0, 2]), [1, 2, 2])
    assert path == [0, 1, 1, 2, 3, 4, 5]
    # symbols that are not there are still placed, in order
    assert viterbi(log_probabilities([0, 1, 0, 2]), [1, 3, 2]) == [0, 1, 3, 5]
    assert viterbi(log_probabilities([0, 1]), [1, 2, 3]) == []


def test_spans_end_half_way_between_words() -> None:
    symbols = [
        Symbol(text, 0.9, start, start + 0.2)
        for text, start in (("a", 0.2), ("b", 0.6), (" ", 1.0), ("c", 1.6), ("d", 2.0))
    ]
    (first, a0, a1, sure), (second, b0, b1, _) = word_spans(symbols)
    assert (first, second) == ("ab", "cd")
    assert a0 == pytest.approx(0.3 - 0.65 * 0.4) and b1 == pytest.approx(2.1 + 0.65 * 0.4)
    assert a1 == pytest.approx(0.7 + 0.65 * 0.4) and a1 <= (0.7 + 1.7) / 2 <= b0 + 0.3
    assert a1 <= b0
    assert sure == pytest.approx(0.9)
    assert word_spans([]) == [] and mean_confidence([]) == 0.0


class Aligner:
    """Stands for the teacher: every symbol as wide as the next."""

    def __init__(self, sure: float = 0.9) -> None:
        self.sure = sure

    def align(self, line: np.ndarray, text: str) -> list[Symbol]:
        pitch = line.shape[1] / line.shape[0] / len(text)
        return [Symbol(c, self.sure, i * pitch, (i + 1) * pitch) for i, c in enumerate(text)]


def test_lines_become_words_where_their_symbols_lie() -> None:
    image = np.zeros((200, 400, 3), np.uint8)
    line = PhotoWord(rect_corners((200, 100), (330, 30), 10), "TAX INVOICE")
    words = label.words_of_line(Aligner(), image, line)  # type: ignore[arg-type]
    assert [w.text for w in words] == ["TAX", "INVOICE"]
    assert all(w.legible for w in words)
    np.testing.assert_allclose(words[0].quad[0], line.quad[0], atol=1e-3)
    np.testing.assert_allclose(words[1].quad[1], line.quad[1], atol=1e-3)
    widths = [np.linalg.norm(w.quad[1] - w.quad[0]) for w in words]
    assert widths[0] / widths[1] == pytest.approx(3 / 7, rel=0.2)
    # a text that the teacher does not see there: a place, but nothing to learn from
    unseen = label.words_of_line(Aligner(0.01), image, line)  # type: ignore[arg-type]
    assert [w.legible for w in unseen] == [False, False]
    one = PhotoWord(line.quad, "TOTAL")
    assert label.words_of_line(Aligner(), image, one) == [one]  # type: ignore[arg-type]


def test_a_data_set_of_lines_becomes_one_of_words(tmp_path: Path) -> None:
    import cv2

    source = tmp_path / "lines"
    (source / "images").mkdir(parents=True)
    (source / "gt").mkdir()
    cv2.imwrite(str(source / "images" / "r1.png"), np.zeros((60, 300, 3), np.uint8))
    row = "10,10,210,10,210,40,10,40,CASH ONLY\n"
    (source / "gt" / "gt_r1.txt").write_text(row)
    total = label.cut_lines(source, tmp_path / "words", Aligner())  # type: ignore[arg-type]
    assert total == 2
    assert (tmp_path / "words" / "images" / "r1.png").is_file()
    rows = (tmp_path / "words" / "gt" / "gt_r1.txt").read_text().splitlines()
    assert [r.rpartition(",")[2] for r in rows] == ["CASH", "ONLY"]


def test_pictures_without_ground_truth_become_a_data_set_of_what_is_sure(tmp_path: Path) -> None:
    import cv2

    source = tmp_path / "packages"
    (source / "images").mkdir(parents=True)
    cv2.imwrite(str(source / "images" / "milk 1.png"), np.zeros((60, 300, 3), np.uint8))
    polygon = (10.2, 10.0, 90.0, 10.0, 90.0, 40.0, 10.0, 40.0)

    def word(text: str, sure: float) -> Word:
        return Word(text, sure, (), 0.9, (10, 10, 90, 40), polygon, 0.0)

    def spot(image: np.ndarray) -> list[Word]:
        assert image.shape == (60, 300, 3)
        return [word("Mjölk", 0.95), word("3dl", 0.89), word("&", 0.99)]

    assert label.find_words(source, tmp_path / "words", spot) == 1
    assert datasets.read_image(tmp_path / "words" / "images" / "milk 1.png").shape == (60, 300, 3)
    words = datasets.parse_gt((tmp_path / "words/gt/gt_milk 1.txt").read_text(encoding="utf-8"))
    assert [w.text for w in words if w.legible] == ["Mjölk"] and len(words) == 3
    np.testing.assert_array_equal(words[0].quad.reshape(-1), np.round(polygon))
