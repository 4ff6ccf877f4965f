"""Images that look alike: the same photo scaled and saved again, and not another one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import word, write_run
from textspot_ray.cli import main
from textspot_ray.query.similar import MAX_BITS, groups_of

pytest.importorskip("imagehash", reason="the extra [similar] is not installed")


def scene(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    return cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)


def test_scaled_and_saved_again_is_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for n in range(6):
        cv2.imwrite(str(source / f"img_{n}.jpg"), scene(n))
    small = cv2.resize(scene(2), (320, 240), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(source / "small_2.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 70])
    cv2.imwrite(str(source / "lighter_2.png"), cv2.convertScaleAbs(scene(2), alpha=0.9, beta=20))
    write_run(str(tmp_path / "t"), [str(source)], lambda item: [word("exit", 9, 9)])
    assert main(["stats", str(tmp_path / "t"), "--similar"]) == 0
    said = capsys.readouterr().out.split("images that look alike\n")[1].splitlines()
    assert said[2].split()[0] == "3" and said[3] == "", "one group alone"
    assert main(["stats", str(tmp_path / "t"), "--similar", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["similar"]
    names = ("img_2.jpg", "lighter_2.png", "small_2.jpg")
    assert group["image_ids"] == [(source / name).as_uri() for name in names]


def test_groups_are_those_of_all_pairs() -> None:
    chance = random.Random(3)
    hashes = {}
    for n in range(60):
        value = chance.getrandbits(64)
        for copy in range(chance.randint(1, 3)):
            bits = sum(1 << bit for bit in chance.sample(range(64), chance.randint(0, 2)))
            hashes[f"{n}-{copy}"] = value ^ bits
    found = groups_of(hashes)
    near = {
        (a, b)
        for a in hashes
        for b in hashes
        if a < b and (hashes[a] ^ hashes[b]).bit_count() <= MAX_BITS
    }
    assert near
    group_of = {name: group for group in found for name in group.image_ids}
    assert all(group_of[a] is group_of[b] for a, b in near)
    assert set(group_of) == {name for pair in near for name in pair}
