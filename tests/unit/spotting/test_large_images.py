"""Whole pages through tiling with a detector that finds painted words in pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.bundles import draw_word, encode_image, plant_words
from textspot_ray.config import ImageConfig
from textspot_ray.images.decode import Decoded
from textspot_ray.spotting.composite.detector import RawRows
from textspot_ray.spotting.composite.family import WordRegions
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, TextSpotter


class Painted:
    """Stands for the compiled detector: bright rectangles high enough to be read are words."""

    input_size = (1280, 768)
    zoom_below = 0.0
    shrink_above = 0.0
    has_score_map = False

    def __init__(self, resize: str = "stretch") -> None:
        self.resize = resize
        self.sizes: list[tuple[int, int]] = []

    def tile_over(self, width: int, height: int, over: float) -> float:
        return over

    def small_size_for(self, width: int, height: int) -> None:
        return None

    def input_size_for(self, width: int, height: int) -> tuple[int, int]:
        return self.input_size

    def detect(self, window: NDArray[np.uint8], *, stretch: bool = True) -> RawRows:
        height, width = window.shape[:2]
        scale_x, scale_y = 1280 / width, 768 / height
        if not (stretch and self.resize == "stretch"):
            scale_x = scale_y = min(scale_x, scale_y)
        small = cv2.resize(
            window[:, :, 0],
            (max(1, round(width * scale_x)), max(1, round(height * scale_y))),
            interpolation=cv2.INTER_AREA,
        )
        self.sizes.append(small.shape[::-1])
        _, _, found, _ = cv2.connectedComponentsWithStats((small > 127).astype(np.uint8))
        rows = [
            f[:4]
            for f in found[1:]
            if min(f[2], f[3]) >= 8 and max(scale_x / scale_y, scale_y / scale_x) < 2
        ]
        boxes = np.array(
            [
                (x / scale_x, y / scale_y, (x + w) / scale_x, (y + h) / scale_y)
                for x, y, w, h in rows
            ],
            np.float64,
        ).reshape(-1, 4)
        return RawRows(
            boxes,
            np.full(len(rows), 0.9),
            np.ones((len(rows), 28, 28), np.float32),
            (boxes[:, :1, None, None] + np.zeros((1, 64, 28, 28))).astype(np.float32),
            False,
        )


_PAGES: dict[str, PageDetector] = {}


def _pages(
    stub: Callable[..., Path], image: ImageConfig | None = None
) -> tuple[PageDetector, Painted]:
    key = repr(image)
    if key not in _PAGES:
        settings = SpotterSettings(model=str(stub()), image=image or ImageConfig())
        _PAGES[key] = PageDetector(settings)
    painted = Painted()
    _PAGES[key]._regions = WordRegions(painted)  # type: ignore[arg-type]
    return _PAGES[key], painted


def _decoded(image: NDArray[np.uint8]) -> Decoded:
    height, width = image.shape[:2]
    return Decoded(image, width, height, 1.0, 1.0, "pixels", 1, 1)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([(2900, 1800), (2000, 2000), (5000, 600), (500, 3500)]),
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(50, 300), st.integers(24, 60)),
        min_size=1,
        max_size=8,
    ),
)
def test_painted_words_are_found_once_where_they_are(
    stub: Callable[..., Path],
    size: tuple[int, int],
    places: list[tuple[float, float, int, int]],
) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    words: list[tuple[int, int, int, int]] = []
    for fx, fy, w, h in places:
        x, y = round(fx * (width - w)), round(fy * (height - h))
        box = (x, y, x + w, y + h)
        if all(
            box[0] > o[2] + 60 or o[0] > box[2] + 60 or box[1] > o[3] + 60 or o[1] > box[3] + 60
            for o in words
        ):
            words.append(box)
            image[y : y + h, x : x + w] = 255
    pages, _ = _pages(stub)
    detected, features = pages.detect_pixels(_decoded(image))
    assert detected.info is not None and detected.info.tiles > 1
    assert len(detected.detections) == len(features) == len(words)
    for box in words:
        nearest = min(
            detected.detections,
            key=lambda d: sum(abs(a - b) for a, b in zip(d.box, box, strict=True)),
        )
        assert nearest.box == pytest.approx(box, abs=4.5)


@pytest.mark.parametrize(("width", "height"), [(8000, 200), (20, 8000), (8000, 20), (3000, 300)])
def test_strips_are_not_pulled_out_of_shape(
    stub: Callable[..., Path], width: int, height: int
) -> None:
    pages, painted = _pages(stub, ImageConfig(tiles="all"))
    image = np.zeros((height, width, 3), np.uint8)
    detected, _ = pages.detect_pixels(_decoded(image))
    assert detected.info is not None and detected.info.tiles == len(painted.sizes) > 1
    for w, h in painted.sizes:
        assert (w, h) != (1280, 768) and max(w / 1280, h / 768) == pytest.approx(1, abs=0.01)


def test_one_pass_of_an_ordinary_photo_keeps_the_bundles_rule(stub: Callable[..., Path]) -> None:
    pages, painted = _pages(stub, ImageConfig(tiles="all"))
    pages.detect_pixels(_decoded(np.zeros((720, 1280, 3), np.uint8)))
    pages.detect_pixels(_decoded(np.zeros((100, 900, 3), np.uint8)))
    assert painted.sizes == [(1280, 768), (1280, 768)]


def test_rows_beside_the_picture_go_with_their_features(stub: Callable[..., Path]) -> None:
    pages, _ = _pages(stub)

    class Padding(Painted):
        def detect(self, window: NDArray[np.uint8], *, stretch: bool = True) -> RawRows:
            boxes = np.array([(10, 700, 60, 730), (10, 10, 60, 40), (5, 590, 60, 640)], np.float64)
            features = np.arange(3, dtype=np.float32)[:, None, None, None] + np.zeros(
                (1, 64, 28, 28), np.float32
            )
            return RawRows(boxes, np.ones(3), np.ones((3, 28, 28), np.float32), features, False)

    pages._regions = WordRegions(Padding())  # type: ignore[arg-type]
    detected, features = pages.detect_pixels(_decoded(np.zeros((600, 1200, 3), np.uint8)))
    assert [d.box for d in detected.detections] == [(10, 10, 60, 40), (5, 590, 60, 600)]
    assert features[:, 0, 0, 0].tolist() == [1, 2]


def test_tiles_off_is_one_pass(stub: Callable[..., Path]) -> None:
    pages, painted = _pages(stub, ImageConfig(tiles="off"))
    pages.detect_pixels(_decoded(np.zeros((3000, 5000, 3), np.uint8)))
    assert len(painted.sizes) == 1


def test_images_below_the_least_side_cost_nothing(stub: Callable[..., Path]) -> None:
    pages, painted = _pages(stub, ImageConfig(min_side=64))
    detected, features = pages.detect(encode_image(np.zeros((63, 400, 3), np.uint8), ".png"))
    assert detected.error is None and detected.detections == () and len(features) == 0
    assert painted.sizes == []


@pytest.mark.parametrize("signature", ["image", "im_data"])
@pytest.mark.parametrize("rows", [100, "dynamic"])
@pytest.mark.parametrize("resize", ["stretch", "keep_aspect"])
@pytest.mark.parametrize("size", [(1280, 768), (1000, 500), (500, 700)])
def test_words_come_back_with_text_and_place(
    stub: Callable[..., Path], signature: str, rows: object, resize: str, size: tuple[int, int]
) -> None:
    # of a padded input the picture fills a part of the cells only: plant into those it has whole
    spotter = _spotter(str(stub(signature=signature, rows=rows, resize=resize)))
    texts = ["ab0", "zz9x", "q"]
    if resize == "stretch":
        image, planted = plant_words(texts, *size, seed=4)
    else:
        canvas, _ = plant_words([], 1280, 768)
        scale = min(768 / size[1], 1280 / size[0])
        right, bottom = int(size[0] * scale / 128), int(size[1] * scale / 96)
        planted_big = [
            draw_word(canvas, text, (c * 128 + 8, r * 96 + 12, c * 128 + 120, r * 96 + 70))
            for text, r, c in zip(texts, [0, bottom - 1, 1], [right - 1, 0, 1], strict=True)
        ]
        w, h = min(1280, round(size[0] * scale)), min(768, round(size[1] * scale))
        image = cv2.resize(canvas[:h, :w], size, interpolation=cv2.INTER_AREA)
        planted = [type(p)(p.text, tuple(v / scale for v in p.box)) for p in planted_big]  # type: ignore[arg-type]
    words = {w.text: w for w in spotter(image)}
    assert set(words) == set(texts)
    for plant in planted:
        word = words[plant.text]
        tolerance = 1.5 + max(size[0] / 1280, size[1] / 768)
        assert word.box == pytest.approx(plant.box, abs=tolerance)
        quad = np.array(word.polygon).reshape(4, 2)
        around = (*quad.min(axis=0), *quad.max(axis=0))
        assert around == pytest.approx(plant.box, abs=2 * tolerance)
        assert word.text_confidence > 0.9
        if size != (500, 700):  # there words are higher than wide, so taken to read upwards
            assert abs(word.angle_deg) < 2 and tuple(quad[0]) == pytest.approx(
                plant.box[:2], abs=2 * tolerance
            )


_SPOTTERS: dict[str, TextSpotter] = {}


def _spotter(model: str) -> TextSpotter:
    if model not in _SPOTTERS:
        _SPOTTERS[model] = TextSpotter.load(model, threads=1)
    return _SPOTTERS[model]


def test_calls_from_several_threads_do_not_mix_images(stub: Callable[..., Path]) -> None:
    model = str(stub(width=640, height=384))
    pages = PageDetector(SpotterSettings(model=model, threads=2, streams=2))
    pictures = [
        encode_image(plant_words([f"w{i}", f"{i}x"], 640, 384, seed=i)[0], ".png") for i in range(4)
    ]
    alone = [pages.detect(data) for data in pictures]
    barrier = threading.Barrier(4)

    def job(i: int) -> tuple[object, NDArray[np.float32]]:
        if i < 4:
            barrier.wait()
        found, features = pages.detect(pictures[i % 4])
        return found.detections, features

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(job, range(20)))
    for i, (detections, features) in enumerate(together):
        assert len(features) == 2 and detections == alone[i % 4][0].detections
        assert np.array_equal(features, alone[i % 4][1])
