"""Words too large for a pass are taken from a coarser one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from textspot_ray.records import Detection
from textspot_ray.spotting.family import WindowFindings
from textspot_ray.spotting.large_words import look_from_afar, regions_of
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, TextSpotter
from textspot_ray.spotting.tiling import Seen, TileWindow, merge

ABOVE = 48.0
WHOLE = TileWindow(0, 0, 1280, 720, 1.0)


def word(x: float, y: float, width: float, height: float, sure: float = 0.9) -> Detection:
    box = (x, y, x + width, y + height)
    polygon = (x, y, x + width, y, x + width, y + height, x, y + height)
    return Detection(confidence=sure, box=box, polygon=polygon, angle_deg=0.0)


def found(*words: Detection) -> WindowFindings:
    return WindowFindings(words, np.zeros((len(words), 1)), False)


def looks(*made: WindowFindings, first: WindowFindings, above: float = ABOVE) -> list[float]:
    """Shrinks of the further passes, of which each finds what is given."""
    waiting = list(made)
    passes = [(WHOLE, first)]
    further = look_from_afar(passes, 1280, 720, lambda _: waiting.pop(0), above)
    return [window.shrink for window, _ in further]


def test_a_picture_is_looked_at_again_as_long_as_it_shows_large_words() -> None:
    low, large, huge = word(0, 0, 200, 40), word(0, 100, 400, 60), word(0, 300, 900, 150)
    assert looks(first=found(low)) == looks(first=found()) == []
    assert looks(first=found(word(0, 0, 140, 60))) == []  # as short as that it is found whole
    assert looks(found(large), first=found(low, large)) == [2.0]
    assert looks(found(huge), found(huge), first=found(huge)) == [2.0, 4.0]
    assert looks(first=found(huge), above=0.0) == []


def test_only_a_pass_over_the_whole_picture_is_repeated() -> None:
    tile = TileWindow(0, 0, 640, 360, 0.5)
    further = look_from_afar([(tile, found(word(0, 0, 400, 200)))], 1280, 720, lambda _: 1 / 0, 48)
    assert further == []


def kept(*made: tuple[TileWindow, WindowFindings]) -> list[tuple[float, float]]:
    """Left and right ends of what remains of all passes."""
    seen: list[Seen] = regions_of(made, 1280, 720, ABOVE)
    merged = merge(seen, 1280, 720, large_above=ABOVE)
    return [(s.detection.box[0], s.detection.box[2]) for s in merged]


HALF = TileWindow(0, 0, 1280, 720, 2.0)


def test_a_large_word_is_taken_from_the_coarser_pass() -> None:
    part, whole = word(100, 100, 480, 70, sure=0.99), word(100, 98, 650, 72, sure=0.7)
    assert kept((WHOLE, found(part)), (HALF, found(whole))) == [(100, 750)]
    # and so it is where it was found in two parts that fill it
    left, right = word(100, 100, 300, 70), word(420, 100, 330, 70)
    assert kept((WHOLE, found(left, right)), (HALF, found(whole))) == [(100, 750)]


def test_other_words_stay_those_of_the_finer_pass() -> None:
    large, small = word(100, 100, 480, 70), word(100, 300, 150, 30)
    from_afar = found(word(102, 100, 478, 70), word(95, 298, 160, 34), word(700, 500, 80, 22))
    assert kept((WHOLE, found(large, small)), (HALF, from_afar)) == [(102, 580), (100, 250)]
    # large words that no coarser pass shows are not lost
    assert kept((WHOLE, found(large, small)), (HALF, found())) == [(100, 580), (100, 250)]


def test_rows_of_features_are_those_of_all_findings() -> None:
    first, second = found(word(0, 0, 90, 60)), found(word(0, 400, 9, 9), word(0, 0, 99, 60))
    seen = regions_of([(WHOLE, first), (HALF, second)], 1280, 720, ABOVE)
    assert [s.row for s in seen] == [0, 2]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280), (900, 900)])
def test_a_coarser_pass_shows_the_picture_half_and_a_quarter_as_large(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = PageDetector(SpotterSettings())
    detector = pages._regions._detector  # type: ignore[attr-defined]
    shown: list[tuple[int, int]] = []
    fit, placed = detector._fit, detector._placed

    def noted_fit(*given: object) -> object:
        made = fit(*given)
        shown.append(made[1:])
        return made

    def noted(*given: object) -> object:
        made = placed(*given)
        shown.append(made[1:])
        return made

    monkeypatch.setattr(detector, "_fit", noted_fit)
    monkeypatch.setattr(detector, "_placed", noted)
    picture = np.full((height, width, 3), 170, np.uint8)
    ink = {"color": (40, 30, 60), "thickness": 26, "lineType": cv2.LINE_AA}
    cv2.putText(picture, "SALE", (30, height // 2 + 60), cv2.FONT_HERSHEY_TRIPLEX, 8, **ink)
    done, data = cv2.imencode(".png", picture)
    assert done
    pages.detect(data.tobytes())
    first, *further = shown
    assert 1 <= len(further) <= 2
    for n, size in enumerate(further, 1):
        assert size[0] == pytest.approx(width / max(width, height) * max(first) / 2**n, rel=0.15)
        assert size[1] / size[0] == pytest.approx(height / width, rel=0.02)


def test_large_words_are_read_in_portraits_too() -> None:
    picture = np.full((1280, 720, 3), 170, np.uint8)
    ink = {"color": (40, 30, 60), "thickness": 30, "lineType": cv2.LINE_AA}
    (width, _), _ = cv2.getTextSize("SALE", cv2.FONT_HERSHEY_TRIPLEX, 10, 30)
    at = ((720 - width) // 2, 700)
    cv2.putText(picture, "SALE", at, cv2.FONT_HERSHEY_TRIPLEX, 10, **ink)
    assert [w.text for w in TextSpotter.load()(picture)] == ["sale"]
