"""Deadlines follow what calls have taken."""

from __future__ import annotations

from textspot_ray.config import ImageConfig
from textspot_ray.engine.components import estimate_work
from textspot_ray.engine.slot.limits import Deadlines
from textspot_ray.engine.slot.ports import blank_png
from textspot_ray.records import Stage


def test_the_floor_holds_until_calls_are_slow():
    deadlines = Deadlines(60.0)
    assert deadlines.limit_s(Stage.DETECT) == 60.0
    for _ in range(50):
        deadlines.note(Stage.DETECT, 0.1)
    assert deadlines.limit_s(Stage.DETECT) == 60.0
    for _ in range(101):
        deadlines.note(Stage.DETECT, 10.0)
    assert deadlines.limit_s(Stage.DETECT) == 200.0
    assert deadlines.limit_s(Stage.RECOGNISE) == 60.0


def test_a_few_slow_calls_do_not_move_it():
    deadlines = Deadlines(1.0)
    for n in range(100):
        deadlines.note(Stage.DETECT, 50.0 if n % 10 == 0 else 0.5)
    assert deadlines.limit_s(Stage.DETECT) == 10.0


def test_a_tiled_image_gets_its_time():
    deadlines = Deadlines(60.0)
    for _ in range(20):
        deadlines.note(Stage.DETECT, 32.0, weight=20)
    assert deadlines.limit_s(Stage.DETECT) == 60.0
    assert deadlines.limit_s(Stage.DETECT, weight=100) == 3200.0


def test_passes_are_told_by_the_header():
    rules = ImageConfig()
    # one, and a tenth of what a page of very many words may take besides
    assert estimate_work(blank_png(1280, 768), rules).passes == 8.5
    assert estimate_work(blank_png(5120, 3072), rules).passes > 8.5
    assert estimate_work(blank_png(5120, 3072), ImageConfig(tiles="off")).passes == 1
    assert estimate_work(b"no image", rules).passes == 1
    assert estimate_work(blank_png(30_000, 10)[:60] + b"\0" * 50, rules).passes >= 1
