"""Words cut out of rendered pictures: of documents and plates, whose neighbourhood matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jobs.training.data.word_crop import Crop, Renderer, Word, surroundings
from jobs.training.reader.crops import MAX_TARGET, empty_places
from jobs.training.render.documents import render_document
from jobs.training.render.plates import render_plate_scene
from jobs.training.render.scenes import Scene, render_word
from jobs.training.render.words import target_of
from jobs.training.render.worlds import Props, World, draw_world, render_picture

# Of rendered words; a plate's number is drawn far more often than it is met, since no dictionary
# helps with it.
WORD_SHARES: Mapping[World, float] = {World.STREET: 0.5, World.DOCUMENT: 0.25, World.PLATE: 0.25}
_PER_PAGE = 16  # words taken from a page, so that many faces and papers are seen


class SceneWords:
    """Words of rendered pictures, a picture's words one after the other.

    Args:
        render: Makes a picture for a generator and a difficulty.
        per_scene: Words taken of a picture at most, drawn by chance.
    """

    def __init__(
        self, render: Callable[[np.random.Generator, float], Scene], per_scene: int
    ) -> None:
        self._render = render
        self._per_scene = per_scene
        self._ready: list[Crop] = []

    def draw(self, rng: np.random.Generator, difficulty: float) -> Crop:
        """The next word, from a new picture where the last one's are used up."""
        while not self._ready:
            scene = self._render(rng, difficulty)
            able = [
                w for w in scene.words if w.legible and 0 < len(target_of(w.text)) <= MAX_TARGET
            ]
            order = rng.permutation(len(able))[: self._per_scene]
            for word in (able[int(i)] for i in order):
                crop = surroundings(scene.image, word.quad)
                if crop is not None:
                    self._ready.append(Crop(crop.image, crop.quad, word.text, sharp=False))
        return self._ready.pop()


def scene_empties(props: Props, count: int, seed: int = 0) -> list[Crop]:
    """Places without text in rendered street scenes, which the reader has to read as ""."""
    rng = np.random.default_rng(seed)
    crops: list[Crop] = []
    while len(crops) < count:
        scene = render_picture(rng, props, World.STREET)
        crops += empty_places(rng, scene.image, [word.quad for word in scene.words], 4)
    return crops[:count]


def word_renderer(props: Props, shares: Mapping[World, float] = WORD_SHARES) -> Renderer:
    """A renderer of words of all worlds, in these shares."""
    parts = (props.fonts, props.words, props.backgrounds)
    pages = SceneWords(lambda rng, d: render_document(rng, d, *parts), _PER_PAGE)
    plates = SceneWords(lambda rng, d: render_plate_scene(rng, 320, 240, d, *parts), 2)

    def render(rng: np.random.Generator, difficulty: float) -> Word:
        world = draw_world(rng, shares)
        if world is World.DOCUMENT:
            return pages.draw(rng, difficulty)
        if world is World.PLATE:
            return plates.draw(rng, difficulty)
        return render_word(rng, difficulty, *parts)

    return render
