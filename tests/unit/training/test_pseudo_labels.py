"""Transcribing words that only a mask marks."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.data import pseudo_labels
from jobs.training.data.pseudo_labels import Reading
from jobs.training.reader import crops as reader_crops
from jobs.training.reader import network as net
from jobs.training.reader.cutting import cut
from textspot_ray.errors import SourceError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo with two wide words and one that is taller than wide."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    image = np.full((200, 400, 3), 90, np.uint8)
    mask = np.zeros((200, 400), np.uint8)
    for x, y, w, h in ((40, 40, 80, 16), (220, 120, 100, 20), (20, 100, 12, 60)):
        image[y : y + h, x : x + w] = 230
        mask[y : y + h, x : x + w] = 255
    cv2.imwrite(str(tmp_path / "images" / "street.png"), image)
    cv2.imwrite(str(tmp_path / "masks" / "street.png"), mask)
    return tmp_path


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    size = net.ReaderSize(widths=(4, 8, 8, 8, 16), dilations=(1,))
    parts = {"encoder": net.Encoder(size), "decoder": net.Decoder(size)}
    state = {f"{p}.{k}": v for p, m in parts.items() for k, v in m.state_dict().items()}
    net.save_reader(tmp_path / "reader.npz", size, state)
    return tmp_path / "reader.npz"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_only_words_that_can_be_laid_upright_are_offered(photos: Path) -> None:
    words = pseudo_labels.marked_words(photos)
    middles = sorted(word.middle for word in words)
    assert middles == [pytest.approx((80, 48), abs=1), pytest.approx((270, 130), abs=1)]


def test_labels_prefer_the_eye_and_skip_the_unsure(photos: Path, tmp_path: Path) -> None:
    words = pseudo_labels.marked_words(photos) * 2
    readings = [Reading("shop", 0.9), Reading("guess", 0.0), Reading("bar", 0.8), Reading("", 0.9)]
    count = pseudo_labels.write_labels(tmp_path / "l.tsv", words, {2: '"BAR-2"'}, readings)
    assert count == 2
    assert [(r["text"], r["by"]) for r in rows(tmp_path / "l.tsv")] == [
        ("shop", "reader"),
        ('"BAR-2"', "eye"),
    ]


def test_labels_come_back_as_crops_of_their_words(photos: Path, tmp_path: Path) -> None:
    words = pseudo_labels.marked_words(photos)
    right = max(range(2), key=lambda i: words[i].middle)
    pseudo_labels.write_labels(
        tmp_path / "l.tsv", words, {right: "Shop"}, [Reading("", 0.0)] * len(words)
    )
    (crop,) = reader_crops.labelled_crops(photos, tmp_path / "l.tsv")
    assert crop.text == "Shop"
    pixels, _ = cut(crop.image, crop.quad)
    assert pixels[20:36, 80:144].min() > 200  # the word, not its neighbour's grey surroundings
    np.testing.assert_allclose(crop.quad, words[right].crop.quad)


def test_missing_labels_are_named(photos: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.tsv"):
        reader_crops.labelled_crops(photos, photos / "nowhere.tsv")


def test_the_command_writes_labels_and_sheets(photos: Path, reader: Path, tmp_path: Path) -> None:
    by_eye = tmp_path / "eye.tsv"
    # other columns and another order than the words' own do not matter, their places do
    by_eye.write_text("number\tfile\tx\ty\ttext\n7\tstreet.png\t270\t130\t?\n")
    second = tmp_path / "eye2.tsv"
    second.write_text("file\tx\ty\ttext\nstreet.png\t80.4\t47.6\tOne\n")
    arguments = ["--mlt", str(photos), "--reader", str(reader), "--by-eye", str(by_eye)]
    arguments += [str(second)]
    arguments += ["--out", str(tmp_path / "l.tsv"), "--sheets", str(tmp_path / "sheets")]
    assert pseudo_labels.main(arguments) == 0
    assert [(r["text"], r["by"]) for r in rows(tmp_path / "l.tsv")] == [("One", "eye")]
    (sheet,) = (tmp_path / "sheets").glob("*.png")
    assert cv2.imread(str(sheet)).shape[1] == pseudo_labels.SHEET_COLUMNS * (224 + 4)


def test_a_sheets_table_filled_in_comes_back(photos: Path, reader: Path, tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    arguments = ["--mlt", str(photos), "--reader", str(reader), "--out", str(tmp_path / "l.tsv")]
    assert pseudo_labels.main([*arguments, "--sheets", str(sheets)]) == 0
    (table,) = sheets.glob("*.tsv")
    head, *lines = table.read_text().splitlines()
    assert len(lines) == 2
    table.write_text("\n".join([head, *(f"{line}W{i}" for i, line in enumerate(lines))]))
    texts = pseudo_labels.transcriptions([table], pseudo_labels.marked_words(photos))
    assert texts == {0: "W0", 1: "W1"}


def test_a_transcription_of_no_marked_word_is_named(photos: Path, tmp_path: Path) -> None:
    words = pseudo_labels.marked_words(photos)
    table = tmp_path / "eye.tsv"
    for place in ("street.png\t88\t48", "other.png\t80\t48"):
        table.write_text(f"file\tx\ty\ttext\n{place}\tShop\n")
        with pytest.raises(SourceError, match=r"eye\.tsv, line 2: no marked word at 8[80], 48 of"):
            pseudo_labels.transcriptions([table], words)


def test_labels_that_lie_on_no_word_are_refused(photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "l.tsv"
    labels.write_text("file\tx\ty\ttext\tby\nstreet.png\t150\t48\tShop\teye\n")
    with pytest.raises(SourceError, match=r"l\.tsv, line 2: no marked word at 150, 48"):
        reader_crops.labelled_crops(photos, labels)
