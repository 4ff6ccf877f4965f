"""Words cut out of rendered pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.reader import scene_words
from jobs.training.reader.cutting import cut
from jobs.training.reader.scene_words import SceneWords, scene_empties, word_renderer
from jobs.training.render.fonts import BUILTIN_PATH, FontFace, FontLibrary
from jobs.training.render.placing import SceneWord
from jobs.training.render.scenes import Scene
from jobs.training.render.words import Vocabulary, target_of
from jobs.training.render.worlds import Props, World, render_picture

FONTS = FontLibrary((FontFace(BUILTIN_PATH, 0, "built-in", 1.0, True),))
PROPS = Props(FONTS, Vocabulary(("apple", "harbour", "window")))


def scene(texts: list[tuple[str, bool]]) -> Scene:
    """Words below each other, on grey that tells them apart."""
    image = np.zeros((40 * len(texts), 200, 3), np.uint8)
    words = []
    for i, (text, legible) in enumerate(texts):
        image[40 * i : 40 * i + 40] = 10 * (i + 1)
        y = 40.0 * i
        quad = np.array([[20, y + 10], [90, y + 10], [90, y + 30], [20, y + 30]], np.float32)
        words.append(SceneWord(quad, text, legible))
    return Scene(image, tuple(words))


def test_only_what_can_be_read_and_said_is_drawn() -> None:
    given = scene(
        [("yes", True), ("hidden", False), ("---", True), ("x" * 40, True), ("2nd", True)]
    )
    source = SceneWords(lambda rng, difficulty: given, 5)
    rng = np.random.default_rng(0)
    drawn = [source.draw(rng, 0.5) for _ in range(8)]
    assert {crop.text for crop in drawn} == {"yes", "2nd"}
    shade = {crop.text: int(np.median(crop.image)) for crop in drawn}
    assert shade == {"yes": 10, "2nd": 50}


def test_a_picture_gives_no_more_words_than_asked_for() -> None:
    made = []

    def render(rng: np.random.Generator, difficulty: float) -> Scene:
        made.append(difficulty)
        return scene([(f"w{i}", True) for i in range(6)])

    source = SceneWords(render, 2)
    rng = np.random.default_rng(0)
    texts = [source.draw(rng, 0.25).text for _ in range(6)]
    assert made == [0.25] * 3
    assert all(texts[i] != texts[i + 1] for i in (0, 2, 4))


@pytest.mark.parametrize("world", World)
def test_words_of_every_world(world: World) -> None:
    render = word_renderer(PROPS, {world: 1.0})
    rng = np.random.default_rng(3)
    for _ in range(5):
        word = render(rng, 0.6)
        assert target_of(word.text)
        height, width = word.image.shape[:2]
        assert (word.quad > -1).all() and (word.quad < [width + 1, height + 1]).all()


def test_places_without_text_keep_clear_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scene] = []

    def noted(rng: np.random.Generator, props: Props, world: World) -> Scene:
        rendered = render_picture(rng, props, world)
        white = rendered.image.copy()
        white[:] = 90
        for word in rendered.words:
            cv2.fillConvexPoly(white, word.quad.round().astype(np.int32), (255, 255, 255))
        seen.append(Scene(white, rendered.words))
        return seen[-1]

    monkeypatch.setattr(scene_words, "render_picture", noted)
    empties = scene_empties(PROPS, 9)
    assert len(empties) == 9 and {crop.text for crop in empties} == {""}
    assert any(len(scene.words) for scene in seen)
    assert all(cut(crop.image, crop.quad)[0][18:-18, 36:-36].max() < 120 for crop in empties)
