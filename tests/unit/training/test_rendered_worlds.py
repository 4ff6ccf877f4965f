"""Rendered documents and plates: words where they say they are, and only what is legible."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.training.render import documents, plates, sheets
from jobs.training.render.documents import PageKind, render_document
from jobs.training.render.fonts import BUILTIN_PATH, FontFace, FontLibrary
from jobs.training.render.homography import side_lengths
from jobs.training.render.placing import SceneWord
from jobs.training.render.plates import draw_number, draw_plate, render_plate_scene
from jobs.training.render.printing import bilevel, inverted
from jobs.training.render.words import Vocabulary, target_of
from jobs.training.render.worlds import Props, World, draw_world, render_picture, write_pictures

# Pillow's own face alone: the tests see the same pictures on every machine.
FONTS = FontLibrary((FontFace(BUILTIN_PATH, 0, "built-in", 1.0, True),))
WORDS = Vocabulary(("apple", "harbour", "window", "quartz", "journey", "vex"))


def contrast(image: NDArray[np.uint8], quad: NDArray[np.float32]) -> float:
    """Spread of grey inside an upright quad."""
    x0, y0 = quad.min(0).round().astype(int)
    x1, y1 = quad.max(0).round().astype(int)
    return float(cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_BGR2GRAY).std())


@pytest.mark.parametrize("kind", PageKind)
def test_a_page_has_words_inside_it_with_ink_in_them(kind: PageKind) -> None:
    scene = render_document(np.random.default_rng(4), 0.0, FONTS, WORDS, kind=kind)
    height, width = scene.image.shape[:2]
    legible = [word for word in scene.words if word.legible]
    assert len(legible) >= 8
    for word in legible:
        assert target_of(word.text)
        assert (word.quad >= 0).all() and (word.quad <= [width, height]).all()
        assert contrast(scene.image, word.quad) > 15


def test_no_two_words_of_a_sheet_lie_over_each_other() -> None:
    sheet = sheets.Sheet(300, 100)
    font = FONTS.open(FONTS.faces[0], 20)
    sheet.write(font, 10, 40, "first second")
    sheet.write(font, 60, 42, "hidden")
    assert [text for _, text in sheet.words] == ["first", "second"]


def test_words_that_leave_the_sheet_are_left_out() -> None:
    sheet = sheets.Sheet(120, 60)
    sheet.write(FONTS.open(FONTS.faces[0], 20), 60, 40, "in farbeyondtheedge")
    assert [text for _, text in sheet.words] == ["in"]


def test_rules_of_signs_are_no_words() -> None:
    sheet = sheets.Sheet(400, 60)
    sheet.write(FONTS.open(FONTS.faces[0], 20), 10, 40, "----- 7 ***** total:")
    assert [text for _, text in sheet.words] == ["7", "total:"]
    assert (sheet.ink[:, 10:50] > 0).any()  # and drawn all the same


def test_a_word_across_the_edge_of_an_inverted_band_counts_no_more() -> None:
    quad = np.array([[10, 5], [80, 5], [80, 115], [10, 115]], np.float32)
    image = np.full((120, 100, 3), 200, np.uint8)
    for seed in range(8):
        turned, words = inverted(
            np.random.default_rng(seed), image, [SceneWord(quad, "tall", True)], 1.0
        )
        assert (turned == 55).any()
        rows = np.flatnonzero((turned[:, 0, 0] == 55) != (turned[0, 0, 0] == 55))
        crosses = bool(len(rows)) and bool(((rows > 5) & (rows < 115)).any())
        assert words[0].legible != crosses


def test_an_old_scan_is_black_and_white() -> None:
    grey = np.linspace(20, 250, 64, dtype=np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    assert set(np.unique(bilevel(np.random.default_rng(0), grey))) == {0, 255}


def test_the_same_state_gives_the_same_page_and_plate() -> None:
    for made in (
        lambda: render_document(np.random.default_rng(7), 0.7, FONTS, WORDS),
        lambda: render_plate_scene(np.random.default_rng(7), 320, 240, 0.7, FONTS, WORDS),
    ):
        one, two = made(), made()
        assert np.array_equal(one.image, two.image)
        assert [w.text for w in one.words] == [w.text for w in two.words]


def test_a_number_follows_its_pattern() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        assert re.fullmatch(r"[A-Z]{2}\d@[A-Z]\d[A-Z]", draw_number(rng, "LL0@L0L"))
        assert re.fullmatch(r"[A-Z]{2}\d\d/[A-Z]_\d{4}", draw_number(rng, "LL00/L_0000"))


def test_doubtful_letters_are_rare() -> None:
    rng = np.random.default_rng(2)
    drawn = Counter("".join(draw_number(rng, "LLLLLL") for _ in range(400)))
    assert 0 < drawn["O"] + drawn["I"] + drawn["Q"] < 0.5 * (drawn["A"] + drawn["B"] + drawn["C"])


def test_every_pattern_has_only_known_signs_and_says_something() -> None:
    for layout in plates.LAYOUTS:
        for pattern in layout.patterns:
            assert set(pattern) <= set("L0@-._/")
            assert any(sign in pattern for sign in "L0")


def test_an_emblem_parts_no_word_and_a_wide_gap_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def texts(pattern: str) -> list[str]:
        layout = plates.PlateLayout(1.0, (520, 112), 76, (0.5, 0.6), (pattern,), "plain")
        monkeypatch.setattr(plates, "LAYOUTS", (layout,))
        plate = draw_plate(np.random.default_rng(3), FONTS, WORDS)
        return [word.text for word in plate.words]

    assert [len(t) for t in texts("LL@000-L0.0")] == [8]
    assert [len(t) for t in texts("LL_000_LL")] == [2, 3, 2]
    assert [len(t) for t in texts("LL00/000")] == [4, 3]


def test_a_plates_words_lie_on_it_from_left_to_right() -> None:
    for seed in range(30):
        plate = draw_plate(np.random.default_rng(seed), FONTS, WORDS)
        height, width = plate.image.shape[:2]
        assert plate.words
        for word in plate.words:
            assert word.quad.min() > -8
            assert (word.quad <= [width + 8, height + 8]).all()
            assert "/" not in word.text and "@" not in word.text


def test_small_words_of_a_plate_are_not_legible() -> None:
    small = []
    for seed in range(20):
        scene = render_plate_scene(np.random.default_rng(seed), 320, 240, 1.0, FONTS, WORDS)
        small += [w.legible for w in scene.words if side_lengths(w.quad)[1] < 7]
    assert small and not any(small)


def test_worlds_are_drawn_by_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(draw_world(rng, {World.PLATE: 3.0, World.STREET: 1.0}) for _ in range(400))
    assert drawn[World.DOCUMENT] == 0
    assert 240 < drawn[World.PLATE] < 360


@pytest.mark.parametrize("world", World)
def test_every_world_gives_a_picture_with_words(world: World) -> None:
    scene = render_picture(np.random.default_rng(11), Props(FONTS, WORDS), world)
    assert scene.image.dtype == np.uint8 and scene.image.ndim == 3
    assert any(word.legible for word in scene.words)


def test_pictures_and_their_words_are_written_alike_each_time(tmp_path: Path) -> None:
    props = Props(FONTS, WORDS)
    total = write_pictures(tmp_path / "a", 2, 5, props, World.PLATE)
    write_pictures(tmp_path / "b", 1, 5, props, World.PLATE)
    lines = [p.read_text().splitlines() for p in sorted((tmp_path / "a" / "gt").iterdir())]
    assert sum(map(len, lines)) == total > 0
    assert all(len(line.split(",", 8)) == 9 for page in lines for line in page)
    first = "images/img_1.jpg"
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / first).read_bytes()


def test_documents_come_in_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    blank = sheets.Sheet(200, 200)
    makers = {kind: lambda s, k=kind: made.append(k) or blank for kind in PageKind}
    monkeypatch.setattr(documents, "_MAKERS", makers)
    for seed in range(60):
        render_document(np.random.default_rng(seed), 0.0, FONTS, WORDS)
    assert set(made) == set(PageKind)
