"""The renderer: words where it says they are, reading the way it says, the same every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.training.render import homography as planes
from jobs.training.render import lettering, scenes, surfaces
from jobs.training.render.fonts import (
    ALPHANUMERICS,
    BUILTIN_PATH,
    FontFace,
    FontLibrary,
    find_fonts,
    open_face,
)
from jobs.training.render.words import Vocabulary, load_vocabulary, target_of
from textspot_ray.errors import SourceError

# Pillow's own face alone: the tests see the same pictures on every machine.
BUILTIN = FontFace(BUILTIN_PATH, 0, "built-in", 1.0, True)


@pytest.fixture(scope="module")
def fonts() -> FontLibrary:
    return FontLibrary((BUILTIN,))


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    return Vocabulary(("apple", "harbour", "window", "quartz", "journey", "vex"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photographs' stand-ins: smooth noise."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        rough = rng.integers(60, 200, (12, 18, 3), dtype=np.uint8)
        smooth = cv2.resize(rough, (320, 220), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"photo_{number}.png"), smooth)
    return folder


def upright(image: NDArray[np.uint8], quad: NDArray[np.float32], height: int = 32) -> np.ndarray:
    """The quad's content as an upright grey strip."""
    across, down = planes.side_lengths(quad)
    width = max(8, round(height * across / down))
    box = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(quad - 0.5, box - 0.5)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.warpPerspective(grey, matrix, (width, height)), np.float32)


def as_drawn(text: str, like: np.ndarray) -> np.ndarray:
    """The text in the built-in face, cut to its ink, resized to the strip's shape."""
    ink = lettering.draw_word(open_face(BUILTIN_PATH, 0, 80), text)
    assert ink is not None
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.resize(ink.mask, size, interpolation=cv2.INTER_AREA), np.float32)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Size of the correlation: ink may be lighter or darker than its ground."""
    return float(abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]))


def test_an_easy_words_quad_is_the_box_of_its_ink(fonts: FontLibrary, words: Vocabulary) -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        patch = scenes.render_word(rng, 0.0, fonts, words)
        away = np.abs(patch.image.astype(int) - patch.image[0, 0].astype(int)).max(axis=2)
        # The quad passes through edge pixels: half covered ones lie on either side of it.
        rows, columns = np.nonzero(away > 0.5 * away.max())
        ink = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        box = np.concatenate([patch.quad.min(axis=0), patch.quad.max(axis=0)])
        assert np.abs(ink - box).max() <= 1.5, (patch.text, ink, box)


def test_an_easy_word_is_short_large_and_of_high_contrast(
    fonts: FontLibrary, words: Vocabulary
) -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        patch = scenes.render_word(rng, 0.0, fonts, words)
        assert 1 <= len(patch.text) <= 4
        assert patch.text.isalnum()
        grey = cv2.cvtColor(patch.image, cv2.COLOR_BGR2GRAY).astype(int)
        assert np.ptp(grey) >= 100
        tall = any(char.isupper() or char.isdigit() for char in patch.text)
        assert planes.side_lengths(patch.quad)[1] >= (23.9 if tall else 17.9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), difficulty=st.floats(0.0, 1.0))
def test_patches_are_valid_at_any_difficulty(seed: int, difficulty: float) -> None:
    library, vocabulary = FontLibrary((BUILTIN,)), Vocabulary(())
    patch = scenes.render_word(np.random.default_rng(seed), difficulty, library, vocabulary)
    height, width = patch.image.shape[:2]
    assert patch.image.dtype == np.uint8
    assert patch.image.shape == (height, width, 3)
    assert patch.quad.shape == (4, 2)
    assert (patch.quad >= 0).all()
    assert (patch.quad <= (width, height)).all()
    assert cv2.contourArea(patch.quad, oriented=True) > 0, "clockwise on the screen"
    assert target_of(patch.text)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    difficulty=st.floats(0.0, 1.0),
    text=st.text(alphabet=ALPHANUMERICS, min_size=1, max_size=9),
)
def test_a_word_on_a_plane_in_space_stays_in_its_quad(
    seed: int, difficulty: float, text: str
) -> None:
    rng = np.random.default_rng(seed)
    set_word = lettering.set_lines(open_face(BUILTIN_PATH, 0, 80), [[text]])
    assert set_word is not None
    pose = planes.draw_pose(rng, difficulty, *rng.uniform(-0.4, 0.4, 2))
    box = set_word.boxes[0]
    middle = (box[:2] + box[2:]) / 2
    matrix = (
        planes.shift(400.0, 400.0)
        @ pose.matrix(1000.0)
        @ planes.zoom(0.5, 0.5)
        @ planes.shift(*(-middle))
    )
    quad = planes.project(matrix, planes.box_corners(box))
    mask = planes.warp_mask(set_word.mask, matrix, (800, 800), 0.5)
    inside = planes.cover_polygon(quad, mask.shape[::-1])
    near = cv2.dilate(inside, np.ones((3, 3), np.uint8))
    assert mask[near == 0].max(initial=0) < 64, "ink outside the quad"
    # Tight: every side of the quad has ink within two pixels.
    shrunk = quad.mean(axis=0) + (quad - quad.mean(axis=0)) * (
        1 - 6 / np.maximum(np.ptp(quad, axis=0), 12)
    )
    core = planes.cover_polygon(shrunk.astype(np.float32), mask.shape[::-1])
    assert mask[core == 0].max(initial=0) > 64, "the quad is wider than its ink"


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_warped_ink_is_where_the_homography_says_to_a_tenth_of_a_pixel(scale: float) -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:70] = 255
    matrix = planes.shift(5.3, 7.6) @ planes.zoom(scale, scale)
    warped = planes.warp_mask(mask, matrix, (200, 150), scale).astype(float)
    rows, columns = np.mgrid[0:150, 0:200] + 0.5
    seen = np.array([(columns * warped).sum(), (rows * warped).sum()]) / warped.sum()
    assert seen == pytest.approx(
        planes.project(matrix, np.array([[50, 30]], np.float32))[0], abs=0.1
    )
    cover = planes.cover_polygon(
        planes.project(matrix, planes.box_corners(np.array([30, 20, 70, 40], np.float32))),
        (200, 150),
    ).astype(float)
    spot = np.array([(columns * cover).sum(), (rows * cover).sum()]) / cover.sum()
    assert spot == pytest.approx(seen, abs=0.1)


def test_bent_words_stay_in_their_boxes() -> None:
    set_word = lettering.set_lines(open_face(BUILTIN_PATH, 0, 80), [["Harbour", "street"]])
    assert set_word is not None
    for sag in (-20.0, 20.0):
        bent = lettering.bend(set_word, sag)
        assert bent.mask.shape[0] >= set_word.mask.shape[0] + 20
        for x0, y0, x1, y1 in bent.boxes.astype(int):
            window = bent.mask[:, x0:x1]
            rows = np.nonzero((window > 128).any(axis=1))[0]
            assert y0 <= rows.min()
            assert rows.max() < y1
        assert (bent.boxes[:, 3] - bent.boxes[:, 1] > 40).all()


def test_quads_tell_which_way_words_read(fonts: FontLibrary, words: Vocabulary) -> None:
    """Upright cuts look like the text; turned upside down, or by a corner, they do not."""
    right, turned = [], []
    for seed in range(12):
        scene = scenes.render_scene(np.random.default_rng(seed), 960, 640, 0.7, fonts, words)
        for word in scene.words:
            if len(word.text) < 4 or planes.side_lengths(word.quad)[1] < 18 or not word.legible:
                continue
            strip = upright(scene.image, word.quad)
            drawn = as_drawn(word.text, strip)
            right.append(agreement(strip, drawn))
            turned.append(agreement(strip[::-1, ::-1], drawn))
    assert len(right) > 40
    assert np.median(right) > 0.75
    assert np.mean(np.array(right) > np.array(turned)) > 0.93


def test_hard_single_words_agree_with_their_text(fonts: FontLibrary, words: Vocabulary) -> None:
    rng = np.random.default_rng(8)
    right = []
    for _ in range(150):
        patch = scenes.render_word(rng, 0.6, fonts, words)
        strip = upright(patch.image, patch.quad)
        right.append(agreement(strip, as_drawn(patch.text, strip)))
    assert np.median(right) > 0.6


def test_the_same_seed_gives_the_same_pictures(fonts: FontLibrary, words: Vocabulary) -> None:
    for difficulty in (0.0, 1.0):
        one = scenes.render_word(np.random.default_rng(5), difficulty, fonts, words)
        two = scenes.render_word(np.random.default_rng(5), difficulty, fonts, words)
        assert one.text == two.text
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.quad, two.quad)
    first = scenes.render_scene(np.random.default_rng(6), 320, 240, 1.0, fonts, words)
    again = scenes.render_scene(np.random.default_rng(6), 320, 240, 1.0, fonts, words)
    other = scenes.render_scene(np.random.default_rng(7), 320, 240, 1.0, fonts, words)
    assert np.array_equal(first.image, again.image)
    assert [w.text for w in first.words] == [w.text for w in again.words]
    assert not np.array_equal(first.image, other.image)


def test_scene_quads_are_inside_and_signs_do_not_cover_each_other(
    fonts: FontLibrary, words: Vocabulary
) -> None:
    for seed in range(8):
        scene = scenes.render_scene(np.random.default_rng(seed), 640, 480, 0.8, fonts, words)
        assert scene.image.shape == (480, 640, 3)
        assert scene.words
        seen = np.zeros((480, 640), np.uint8)
        for word in scene.words:
            assert (word.quad >= 0).all()
            assert (word.quad <= (640, 480)).all()
            assert cv2.contourArea(word.quad, oriented=True) > 0
            alone = planes.cover_polygon(word.quad, (640, 480)) > 128
            shared = (alone & (seen > 0)).sum() / max(1, alone.sum())
            assert shared < 0.3, word.text
            seen |= alone.astype(np.uint8)


def test_hard_scenes_hold_small_turned_and_illegible_words(
    fonts: FontLibrary, words: Vocabulary
) -> None:
    heights, angles, legible = [], [], []
    for seed in range(25):
        scene = scenes.render_scene(np.random.default_rng(seed), 960, 640, 1.0, fonts, words)
        for word in scene.words:
            edge = word.quad[1] - word.quad[0]
            heights.append(planes.side_lengths(word.quad)[1])
            angles.append(abs(np.degrees(np.arctan2(edge[1], edge[0]))))
            legible.append(word.legible)
    assert np.mean(np.array(heights) < 12) > 0.1
    assert np.percentile(heights, 90) > 25
    assert 2 < np.median(angles) < 15
    assert np.max(angles) > 60
    assert 0.5 < np.mean(legible) < 0.999


def test_clean_scenes_are_level_large_and_undistorted(
    fonts: FontLibrary, words: Vocabulary
) -> None:
    right = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scene = scenes.render_scene(rng, 640, 480, 0.0, fonts, words, clean=True)
        assert scene.words
        for word in scene.words:
            edge = word.quad[1] - word.quad[0]
            assert abs(np.degrees(np.arctan2(edge[1], edge[0]))) <= 5.01
            assert planes.side_lengths(word.quad)[1] >= 15.9, word.text
            assert word.legible
            # A rectangle: opposite sides equal, corners square.
            sides = np.linalg.norm(np.roll(word.quad, -1, axis=0) - word.quad, axis=1)
            assert sides[0] == pytest.approx(sides[2], rel=1e-3)
            assert abs(edge @ (word.quad[3] - word.quad[0])) < 0.01 * sides[0] * sides[1]
            strip = upright(scene.image, word.quad)
            right.append(agreement(strip, as_drawn(word.text, strip)))
    assert np.percentile(right, 20) > 0.75


def test_signs_keep_clear_of_a_photographs_own_words(fonts: FontLibrary, words: Vocabulary) -> None:
    own = np.array([[100, 100], [540, 100], [540, 380], [100, 380]], np.float32)
    base = scenes.Scene(
        np.full((480, 640, 3), 127, np.uint8), (scenes.SceneWord(own, "HARBOUR", True),)
    )
    drawn = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scene = scenes.render_scene(rng, 640, 480, 0.5, fonts, words, base=base)
        assert scene.words[0] == base.words[0]
        hole = planes.cover_polygon(own, (640, 480)) > 0
        for word in scene.words[1:]:
            drawn += 1
            assert not (hole & (planes.cover_polygon(word.quad, (640, 480)) > 0)).any()
    assert drawn > 5
    assert (base.image == 127).all(), "the photograph itself is left alone"


def test_backgrounds_are_used(fonts: FontLibrary, words: Vocabulary, photos: Path) -> None:
    library = surfaces.load_backgrounds(photos)
    assert len(library.photos) == 3
    rng = np.random.default_rng(1)
    cut = library.cut(rng, 90, 40)
    assert cut.shape == (40, 90, 3)
    assert 60 <= int(np.median(cut)) <= 200
    with_photos = [
        scenes.render_word(np.random.default_rng(s), 1.0, fonts, words, library) for s in range(40)
    ]
    without = [scenes.render_word(np.random.default_rng(s), 1.0, fonts, words) for s in range(40)]
    same = [
        a.image.shape == b.image.shape and np.array_equal(a.image, b.image)
        for a, b in zip(with_photos, without, strict=True)
    ]
    assert not all(same)


def test_a_cut_larger_than_the_photograph_is_enlarged(photos: Path) -> None:
    library = surfaces.load_backgrounds(photos)
    for seed in range(20):
        cut = library.cut(np.random.default_rng(seed), 1280, 720)
        assert cut.shape == (720, 1280, 3)


def test_annotated_words_are_painted_over(tmp_path: Path) -> None:
    image = np.full((200, 400, 3), 90, np.uint8)
    cv2.putText(image, "WORD", (120, 120), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 6)
    (tmp_path / "images").mkdir()
    (tmp_path / "gt").mkdir()
    for name in ("img_1", "img_2"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), image)
    # Coordinates for a picture twice as large, with the byte order mark the organisers use.
    line = "\ufeff220,120,580,120,580,260,220,260,WO,RD\r\n\n"
    (tmp_path / "gt" / "gt_img_1.txt").write_text(line, encoding="utf-8")
    library = surfaces.load_backgrounds(tmp_path / "images", tmp_path / "gt", (800, 400))
    assert [photo.path.stem for photo in library.photos] == ["img_1"]
    assert int(library.photo(np.random.default_rng(0)).max()) < 110
    # ground truth beside the photographs is found, in pixels of the files
    halves = ",".join(str(v // 2) for v in (220, 120, 580, 120, 580, 260, 220, 260))
    (tmp_path / "gt" / "gt_img_1.txt").write_text(halves + ",WORD\n", encoding="utf-8")
    library = surfaces.load_backgrounds(tmp_path)
    assert [photo.path.stem for photo in library.photos] == ["img_1"]
    assert int(library.photo(np.random.default_rng(0)).max()) < 110


def test_mottled_grounds_are_coarse_and_fine_at_once() -> None:
    for seed in range(20):
        ground = surfaces.mottled(np.random.default_rng(seed), 256, 160)
        assert ground.shape == (160, 256, 3) and ground.dtype == np.uint8
    rough = np.stack([surfaces.mottled(np.random.default_rng(n), 256, 256) for n in range(30)])
    grey = rough.astype(np.float64).mean(axis=3)
    power = (np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0)
    # amplitude falls with frequency, but nowhere to nothing
    assert power[0, 2:6].mean() > 4 * power[0, 16:32].mean() > 4 * power[0, 64:128].mean() > 0


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"):
        surfaces.load_backgrounds(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no jpeg")
    library = surfaces.load_backgrounds(tmp_path)
    with pytest.raises(SourceError, match="decoded"):
        library.photo(np.random.default_rng(0))


def test_written_scenes_are_icdar_pairs_and_extend(
    tmp_path: Path, fonts: FontLibrary, words: Vocabulary, photos: Path
) -> None:
    library = surfaces.load_backgrounds(photos)
    size = (320, 240)
    scenes.write_scenes(tmp_path / "two", 2, 9, size, 1.0, fonts, words, library)
    total = scenes.write_scenes(tmp_path / "three", 3, 9, size, 1.0, fonts, words, library)
    lines = 0
    for number in (1, 2, 3):
        image = cv2.imread(str(tmp_path / "three" / "images" / f"img_{number}.jpg"))
        assert image is not None
        assert image.shape == (240, 320, 3)
        truth = (tmp_path / "three" / "gt" / f"gt_img_{number}.txt").read_bytes()
        for line in truth.decode("utf-8").splitlines():
            fields = line.split(",", 8)
            assert all(0 <= int(value) <= 320 for value in fields[:8])
            assert fields[8] == "###" or target_of(fields[8])
            lines += 1
    assert lines == total
    for name in ("images/img_2.jpg", "gt/gt_img_2.txt"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_the_command_writes_clean_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "no-fonts"
    nothing.mkdir()
    out = tmp_path / "out"
    arguments = [str(out), "--count", "2", "--seed", "3", "--size", "320x240", "--clean"]
    listing = tmp_path / "words"
    listing.write_text("harbour\n", encoding="utf-8")
    arguments += ["--fonts", str(nothing), "--words", str(listing)]
    assert scenes.main(arguments) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert sorted(p.name for p in (out / "gt").iterdir()) == ["gt_img_1.txt", "gt_img_2.txt"]
    with pytest.raises(SystemExit):
        scenes.main([str(out), "--size", "320"])


def test_without_fonts_the_built_in_face_is_used(tmp_path: Path) -> None:
    library = find_fonts([tmp_path], cache_dir=tmp_path / "cache")
    assert [face.path for face in library.faces] == [BUILTIN_PATH]


def test_font_check_keeps_letters_and_drops_the_rest(tmp_path: Path) -> None:
    faces = Path(mpl.get_data_path()) / "fonts" / "ttf"
    cache = tmp_path / "cache"
    (tmp_path / "rubbish.ttf").write_bytes(b"not a font")
    library = find_fonts([faces, tmp_path], cache_dir=cache)
    names = {Path(face.path).name for face in library.faces}
    assert {"DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf"} <= names
    # Integral signs and the like, no letters; and a file that is no font.
    assert not {"STIXSizOneSymReg.ttf", "cmsy10.ttf", "cmex10.ttf", "rubbish.ttf"} & names
    assert all(face.punctuation for face in library.faces if "DejaVuSans." in face.path)
    assert find_fonts([faces, tmp_path], cache_dir=cache).faces == library.faces
    # A damaged list is made anew.
    (listing,) = cache.glob("fonts-*.json")
    listing.write_text("[[1]]", encoding="utf-8")
    assert find_fonts([faces, tmp_path], cache_dir=cache).faces == library.faces


def test_plain_faces_and_small_families_come_first() -> None:
    plain = FontFace("a", 0, "A", 0.9, True)
    fancy = FontFace("b", 0, "B", 0.4, True)
    rng = np.random.default_rng(0)
    library = FontLibrary((plain, fancy))
    picks = [library.draw(rng).path for _ in range(500)]
    assert picks.count("a") > 4 * picks.count("b") > 0
    large = [FontFace(f"c{i}", 0, "C", 0.9, True) for i in range(16)]
    library = FontLibrary((plain, *large))
    picks = [library.draw(rng).path for _ in range(1000)]
    assert picks.count("a") > 200
    logo = FontFace("d", 0, "D", 0.9, False)
    library = FontLibrary((plain, logo))
    assert {library.draw(rng, "50%").path for _ in range(50)} == {"a"}
    assert {library.draw(rng, "fifty").path for _ in range(50)} == {"a", "d"}
    with pytest.raises(ValueError, match="at least one"):
        FontLibrary(())


def test_words_are_what_signs_say(words: Vocabulary) -> None:
    rng = np.random.default_rng(2)
    texts = [words.draw(rng, 16) for _ in range(3000)]
    assert all(1 <= len(text) <= 16 and target_of(text) for text in texts)
    assert 0.4 < np.mean([text.isupper() for text in texts]) < 0.65
    assert 0.15 < np.mean([text.istitle() for text in texts]) < 0.4
    assert 0.05 < np.mean([any(c.isdigit() for c in text) for text in texts]) < 0.3
    assert 0.05 < np.mean([not text.isalnum() for text in texts]) < 0.3
    assert set(target_of("".join(texts))) == set("abcdefghijklmnopqrstuvwxyz0123456789")
    short = [words.draw(rng, 4, plain=True) for _ in range(300)]
    assert all(text.isalnum() and len(text) <= 4 for text in short)


def test_word_lists_are_read_by_line(tmp_path: Path) -> None:
    listing = tmp_path / "words"
    listing.write_text("apple\nit's\ncafé\nI\n  pear \n", encoding="utf-8")
    vocabulary = load_vocabulary(listing, extra=["Jurong", "!!"])
    assert vocabulary.dictionary == ("apple", "pear")
    assert "Jurong" in vocabulary.street
    assert "!!" not in vocabulary.street
    with pytest.raises(OSError, match="nowhere"):
        load_vocabulary(tmp_path / "nowhere")


def test_targets_are_lower_case_letters_and_digits() -> None:
    assert target_of("S$45.90") == "s4590"
    assert target_of("Don't!") == "dont"
    assert target_of("&?") == ""
