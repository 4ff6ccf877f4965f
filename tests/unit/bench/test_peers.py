"""Programs side by side, and the made-up large photos that they are shown."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.bench import large_photos
from jobs.bench.large_photos import Sources, mixed_kinds, write_photos
from jobs.bench.peers import Peer, compare, counted, main, read_set, table
from textspot_ray.errors import UsageError

# Knows the texts by the files' names: every second word is wrong for the sloppy one.
_ECHO = """
    def spot(paths):
        return [["Stop!", "sign" if option == "good" else "sing", "ab"] for path in paths]
"""
_MISSING = "import no_such_library"


def make_set(folder: Path, count: int = 2) -> Path:
    for name in ("images", "gt"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / "images" / f"a_{i}.png"), np.zeros((8, 8, 3), np.uint8))
        lines = ["0,0,4,0,4,4,0,4,STOP sign", "0,0,4,0,4,4,0,4,###"]
        (folder / "gt" / f"gt_a_{i}.txt").write_text("\n".join(lines))
    return folder


def test_programs_take_turns_and_are_scored_alike(tmp_path: Path) -> None:
    images = read_set("street", make_set(tmp_path / "s"), None)
    peers = [Peer("good", _ECHO, "good"), Peer("bad", _ECHO, "bad"), Peer("none", _MISSING)]
    results = compare(peers, [images], 1, 1)
    assert [(r.name, r.images, r.precision, r.recall, r.f) for r in results] == [
        ("good", 2, 1.0, 1.0, 1.0),
        ("bad", 2, 0.5, 0.5, 0.5),
    ], "the missing one is left out; words of two letters do not count"
    assert all(r.ms > 0 and r.images_per_s == pytest.approx(1000 / r.ms) for r in results)
    assert "| good | " in table(results) and "street: images/s" in table(results)


def test_words_that_count() -> None:
    assert counted(["Stop!", "ab", "STOP", "1,234"]) == {"stop": 2, "1234": 1}


def test_a_set_without_ground_truth_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match="no images with ground truth"):
        read_set("x", tmp_path, None)
    assert main(["--set", f"x={tmp_path / 'nowhere'}"]) == 2
    assert "has no folder images" in capsys.readouterr().err


def test_large_photos_are_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_photos, "WIDTH", 400)
    monkeypatch.setattr(large_photos, "HEIGHT", 300)
    rng = np.random.default_rng(2)
    ground = tmp_path / "bg.png"
    cv2.imwrite(str(ground), rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    words = make_set(tmp_path / "words", 1) / "images" / "a_0.png"
    sources = Sources((ground,), (words,), (words,), (words,))
    kinds = ["textless", "street", "receipt"]
    made = [write_photos(tmp_path / name, sources, kinds, 5) for name in ("one", "two")]
    assert made[0] == made[1] == [("textless_000", 0), ("street_001", 1), ("receipt_002", 1)]
    for name, _ in made[0]:
        files = [tmp_path / run / "images" / f"{name}.jpg" for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
        image = cv2.imread(str(files[0]))
        assert image is not None and image.shape == (300, 400, 3)
    quad = (tmp_path / "one" / "gt" / "gt_receipt_002.txt").read_text().split(",")[:8]
    assert all(0 <= int(v) <= 400 for v in quad)


def test_a_fifth_with_text() -> None:
    kinds = mixed_kinds(20, 0.2)
    assert len(kinds) == 20 and kinds.count("textless") == 16
    assert [k for k in kinds if k != "textless"] == ["street", "street", "street", "receipt"]
