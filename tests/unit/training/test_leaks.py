"""The leak check sees copies, scaled and recompressed photos, and crops of held-out words."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.data import leaks
from textspot_ray.errors import SourceError

WORDS = ("Coffee", "Station", "OPEN", "7-Eleven", "Mango", "Bakery")


def picture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def street(seed: int, words: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """A photo of 1280x720 with words, and its ground truth."""
    image = picture(seed, 720, 1280) // 2
    lines = []
    for i, text in enumerate(words):
        x, y = 100 + 400 * (i % 3), 150 + 250 * (i // 3)
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.6, 4)
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (250, 240, 230), 4)
        lines.append(f"{x},{y - h},{x + w},{y - h},{x + w},{y},{x},{y},{text}")
    return image, "\n".join(lines)


def write_photos(root: Path, seeds: dict[int, tuple[str, ...]]) -> Path:
    """Photos stored at 960x640, as ICDAR2015's here are."""
    (root / "images").mkdir(parents=True)
    (root / "gt").mkdir()
    for number, words in seeds.items():
        image, gt = street(number, words)
        stored = cv2.resize(image, (960, 640), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(root / "images" / f"img_{number}.jpg"), stored)
        (root / "gt" / f"gt_img_{number}.txt").write_text(gt)
    return root


def write_crop(folder: Path, image: np.ndarray, line: str, photo: int) -> None:
    """Cut a word of a full-resolution photo into the set of word crops."""
    (folder / "words").mkdir(parents=True)
    *numbers, text = line.split(",", 8)
    quad = np.array([int(n) for n in numbers]).reshape(4, 2)
    (x0, y0), (x1, y1) = quad.min(0) - 3, quad.max(0) + 4
    cv2.imwrite(str(folder / "words" / "w.jpg"), image[y0:y1, x0:x1])
    cells = "\t".join(str(n) for n in (quad - [x0, y0]).ravel())
    head = "file\tphoto\tx1\ty1\tx2\ty2\tx3\ty3\tx4\ty4\ttext\n"
    (folder / "words.tsv").write_text(f"{head}w.jpg\t{photo}\t{cells}\t{text}\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_photos(tmp_path / "data" / "icdar2015_train", {1: WORDS[:3], 2: WORDS[3:]})
    return tmp_path / "data"


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "dev", {901: WORDS[1:4], 902: WORDS[:2]})


def command(data: Path, dev: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--held-out", str(dev), *more]


def test_leaks_are_found_through_copies_scaling_and_compression(tmp_path: Path) -> None:
    held_out, training = tmp_path / "dev", tmp_path / "train"
    held_out.mkdir()
    training.mkdir()
    for n in range(6):
        cv2.imwrite(str(held_out / f"d{n}.png"), picture(n))
        cv2.imwrite(str(training / f"t{n}.png"), picture(100 + n))
    names = sorted(training.iterdir())
    dev = sorted(held_out.iterdir())
    assert leaks.photo_leaks(names, dev) == []
    (training / "copy.png").write_bytes(dev[1].read_bytes())
    smaller = cv2.resize(picture(4), (101, 77), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(training / "small.jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 60])
    found = leaks.photo_leaks(sorted(training.iterdir()), dev)
    assert {(Path(k.training).name, Path(k.held_out).name) for k in found} == {
        ("copy.png", "d1.png"),
        ("small.jpg", "d4.png"),
    }
    assert next(k for k in found if Path(k.training).name == "copy.png").distance_bits == 0


def test_other_photos_with_the_same_words_are_no_leak(
    data: Path, dev: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the words stand on other backgrounds and elsewhere, but are written alike: told by photo
    assert leaks.photo_leaks(leaks.training_photos(data), sorted((dev / "images").iterdir())) == []
    write_photos(data / "icdar2003_train", {5: ("Pizza", "Grill", "Exit")})
    (data / "icdar2015_train").rename(data / "elsewhere")
    assert leaks.main(command(data, dev)) == 0
    assert "1 pictures and 3 words compared with 2 pictures, 0 leaks" in capsys.readouterr().out


def test_a_leaked_photo_is_named(data: Path, dev: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaked = cv2.imread(str(dev / "images" / "img_902.jpg"))
    (data / "backgrounds").mkdir()
    cv2.imwrite(str(data / "backgrounds" / "bg.jpg"), cv2.resize(leaked, (600, 400)))
    assert leaks.main(command(data, dev)) == 1
    printed = capsys.readouterr().out
    assert "bg.jpg is " in printed
    assert "img_902.jpg" in printed


@pytest.mark.parametrize("seed", [901, 77])
def test_a_leaked_word_crop_is_told_from_another_photos(
    tmp_path: Path, dev: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    words = WORDS[1:4] if seed == 901 else ("Market", "Hotel", "Dental")
    image, gt = street(seed, words)
    data = write_photos(tmp_path / "d" / "icdar2003_train", {5: ("Pizza", "Grill")}).parent
    write_crop(data / "icdar2015_words", image, gt.splitlines()[0], photo=12)
    assert leaks.main(command(data, dev)) == (1 if seed == 901 else 0)
    printed = capsys.readouterr().out
    leaked = [line for line in printed.splitlines() if line.startswith("LEAK")]
    if seed == 901:
        (line,) = leaked
        assert line.startswith("LEAK icdar2015_words: Station is ")
        assert "img_901.jpg: Station" in line


def test_a_leaked_piece_of_a_photo_is_seen_by_its_words(tmp_path: Path, dev: Path) -> None:
    image, gt = street(901, WORDS[1:4])
    piece = image[60:260, 60:700]
    root = tmp_path / "data" / "mlt_english_masks"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros(piece.shape[:2], np.uint8)
    x0, y0, x1, _, _, y1, *_ = (int(n) for n in gt.splitlines()[0].split(",")[:8])
    x0, x1, y0, y1 = x0 - 60, x1 - 60, y0 - 60, y1 - 60
    dx, dy = round(0.15 * (x1 - x0)), round(0.15 * (y1 - y0))  # masks are shrunken
    mask[y0 + dy : y1 - dy, x0 + dx : x1 - dx] = 255
    cv2.imwrite(str(root / "images" / "p.png"), piece)
    cv2.imwrite(str(root / "masks" / "p.png"), mask)
    labels = tmp_path / "labels.tsv"
    middle = f"{(x0 + x1) / 2:.1f}\t{(y0 + y1) / 2:.1f}"
    labels.write_text(f"file\tx\ty\ttext\np.png\t{middle}\tStation\n")
    data = root.parent
    assert leaks.photo_leaks(leaks.training_photos(data), sorted((dev / "images").iterdir())) == []
    assert leaks.main(command(data, dev, "--labels", str(labels))) == 1


def test_labels_of_photos_that_are_not_given_are_named(
    data: Path, dev: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "l.tsv"
    labels.write_text("file\tx\ty\ttext\nimg_7.jpg\t1\t1\tShop\n")
    with pytest.raises(SourceError, match=r"1 photos of .*l\.tsv are missing, img_7\.jpg first"):
        leaks.main(command(data, dev, "--labels", str(labels)))
    with pytest.raises(SourceError, match="none of the training sets"):
        leaks.main(command(tmp_path / "nowhere", dev))


def test_a_plate_of_the_measured_set_among_the_training_crops_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def car(seed: int, text: str) -> np.ndarray:
        image = picture(seed, 400, 600) // 3
        image[150:250, 200:400] = 230
        place = (215, 212)
        return cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 1.4, (60, 20, 20), 4)

    measured = tmp_path / "plates_dev"
    (measured / "images").mkdir(parents=True)
    cv2.imwrite(str(measured / "images" / "p1.jpg"), car(1, "AB1 C2D"))
    (measured / "plates.tsv").write_text(
        "file\tx\ty\tw\th\tplate\np1.jpg\t200\t150\t200\t100\tAB1C2D\n"
    )
    data = tmp_path / "data"
    crops = data / "plates_us_words" / "words"
    crops.mkdir(parents=True)
    pictures = {f"other{i}": car(5 + i, f"XK{i} 77{i}") for i in range(3)}
    pictures["same"] = cv2.resize(car(1, "AB1 C2D"), None, fx=0.8, fy=0.8)
    rows = []
    for name, image in pictures.items():
        scale = image.shape[1] / 600
        x0, y0, x1, y1 = (round(v * scale) for v in (200, 150, 400, 250))
        cv2.imwrite(str(crops / f"{name}.png"), image[y0:y1, x0:x1])
        w, h = x1 - x0, y1 - y0
        rows.append(f"{name}.png\tweb\t0,0,{w},0,{w},{h},0,{h}\t{name}")
    (crops.parent / "words.tsv").write_text("\n".join(rows) + "\n")
    (crops.parent / "roles.tsv").write_text("".join(f"{name}\ttrain\n" for name in pictures))
    assert leaks.main(command(data, measured)) == 1
    leaked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("LEAK")]
    assert leaked and all(line.startswith("LEAK plates: same is p1.jpg") for line in leaked)


def test_of_a_set_with_pages_kept_aside_only_those_are_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "forms_train"
    (folder / "images").mkdir(parents=True)
    for n in range(60):
        cv2.imwrite(str(folder / "images" / f"form{n}.png"), picture(n, 40, 30))
    held = leaks.held_out_photos(folder)
    assert len(held) == 30
    other = folder.rename(tmp_path / "receipts_dev")
    assert len(leaks.held_out_photos(other)) == 60
    assert list(leaks.held_out_words(other)) == []
