"""Font faces for the scene renderer: found on this machine, checked by drawing every letter."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALPHANUMERICS = LETTERS + LETTERS.upper() + "0123456789"
MARKS = "-.,'\":;!?$%&#/()[]@"
FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc", ".pfb"})

# Bump when the check below changes, so that lists kept by an older check are not used.
_CHECK_VERSION = 12
_CHECK_SIZE_PX = 40
_SHAPE_CELLS = 20
# Mean agreement with the average letters below which a face is pictures, ornaments or unreadable
# (chosen by eye on contact sheets of ~900 faces).
_MIN_PLAINNESS = 0.45
# Pillow's own scalable face: the one font that is there wherever Pillow (with FreeType) is.
BUILTIN_PATH = ""


@dataclass(frozen=True, slots=True)
class FontFace:
    """One face of one font file.

    Attributes:
        path: The font file; empty for Pillow's built-in face.
        index: The face's number in a collection (.ttc), otherwise 0.
        family: The family's name, as the file gives it.
        plainness: Mean agreement (0..1) of its letters with the average of all faces' letters.
        punctuation: Whether it draws the usual marks as marks; some faces have their maker's
            logo in those places.
    """

    path: str
    index: int
    family: str
    plainness: float
    punctuation: bool


@dataclass(slots=True)
class FontLibrary:
    """Faces to draw with, plain ones more often than fancy ones.

    Args:
        faces: Checked faces, as `find_fonts` gives them; must not be empty.
        max_open: How many (face, size) pairs are kept open.
    """

    faces: Sequence[FontFace]
    max_open: int = 1200
    _cumulative: NDArray[np.float64] = field(init=False, repr=False)
    _open: OrderedDict[tuple[str, int, int], ImageFont.FreeTypeFont] = field(
        init=False, repr=False, default_factory=OrderedDict
    )

    def __post_init__(self) -> None:
        if not self.faces:
            raise ValueError("a FontLibrary needs at least one face")
        # Street lettering is mostly plain. And a family of fifty weights and widths must not be
        # drawn fifty times as often as a family of one.
        sizes = Counter(face.family for face in self.faces)
        weights = np.array(
            [max(face.plainness, 0.05) ** 7 / sizes[face.family] ** 0.6 for face in self.faces]
        )
        self._cumulative = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator, text: str = "") -> FontFace:
        """Pick a face at random, one with proper marks where the text has any."""
        marks = any(not char.isalnum() and not char.isspace() for char in text)
        for _ in range(8):
            place = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
            face = self.faces[min(place, len(self.faces) - 1)]
            if face.punctuation or not marks:
                break
        return face

    def open(self, face: FontFace, size_px: int) -> ImageFont.FreeTypeFont:
        """Return the face at a pixel size, from the open ones where it is among them."""
        key = (face.path, face.index, size_px)
        font = self._open.get(key)
        if font is None:
            font = open_face(face.path, face.index, size_px)
            self._open[key] = font
            if len(self._open) > self.max_open:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(key)
        return font


def open_face(path: str, index: int, size_px: int) -> ImageFont.FreeTypeFont:
    """Open a face; an empty path is Pillow's built-in one.

    Raises:
        OSError: The file cannot be read as a font.
    """
    if path == BUILTIN_PATH:
        font = ImageFont.load_default(size_px)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise OSError("this Pillow was built without FreeType: it has no scalable font")
        return font
    return ImageFont.truetype(path, size_px, index=index, layout_engine=ImageFont.Layout.BASIC)


def platform_font_dirs() -> tuple[Path, ...]:
    """Folders where this platform keeps fonts, existing ones only."""
    home = Path.home()
    if sys.platform == "win32":
        places = [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    elif sys.platform == "darwin":
        places = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    else:
        places = [
            Path("/usr/share/fonts"),
            Path("/usr/local/share/fonts"),
            home / ".local/share/fonts",
            home / ".fonts",
        ]
    return tuple(place for place in places if place.is_dir())


def find_fonts(folders: Iterable[Path] | None = None, cache_dir: Path | None = None) -> FontLibrary:
    """Find every face that really draws a-z, A-Z and 0-9.

    The checked list is kept in a file of the user's cache folder, under a name that depends on
    the font files' paths, sizes and times, so a new font is seen and an unchanged set costs
    only a walk.

    Args:
        folders: Where to look, recursively; the platform's font folders when None.
        cache_dir: Where to keep the checked list; the user's cache folder when None.

    Returns:
        A library with at least one face: Pillow's built-in one where nothing else passes.
    """
    files = sorted(
        path
        for folder in (platform_font_dirs() if folders is None else folders)
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in FONT_SUFFIXES and path.is_file()
    )
    digest = hashlib.sha256(f"check {_CHECK_VERSION}\n".encode())
    for path in files:
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    keep = cache_dir or Path(platformdirs.user_cache_dir("textspot-ray"))
    listing = keep / f"fonts-{digest.hexdigest()[:16]}.json"
    faces = _read_listing(listing)
    if faces is None:
        faces = _check_files(files)
        _write_listing(listing, faces)
    return FontLibrary(faces or (_builtin_face(),))


def _read_listing(listing: Path) -> tuple[FontFace, ...] | None:
    try:
        rows = json.loads(listing.read_text(encoding="utf-8"))
        return tuple(
            FontFace(str(path), int(at), str(family), float(plain), bool(marks))
            for path, at, family, plain, marks in rows
        )
    except (OSError, ValueError, TypeError):
        return None


def _write_listing(listing: Path, faces: Sequence[FontFace]) -> None:
    # A cache that cannot be written costs a few seconds next time, never the run.
    try:
        listing.parent.mkdir(parents=True, exist_ok=True)
        draft = listing.with_suffix(f".{os.getpid()}.tmp")
        rows = [
            [face.path, face.index, face.family, face.plainness, face.punctuation] for face in faces
        ]
        draft.write_text(json.dumps(rows), encoding="utf-8")
        draft.replace(listing)
    except OSError:
        return


def _builtin_face() -> FontFace:
    return FontFace(BUILTIN_PATH, 0, "built-in", 1.0, True)


def _check_files(files: Sequence[Path]) -> tuple[FontFace, ...]:
    found: list[tuple[str, int, str, bool]] = []
    drawn: list[NDArray[np.float32]] = []
    seen: set[bytes] = set()
    for path in files:
        for index in range(64):
            try:
                font = open_face(str(path), index, _CHECK_SIZE_PX)
                shapes = _shapes(font)
            except (OSError, ValueError):
                break
            # The same face is often installed twice, as .otf and .ttf or .pfb.
            if shapes is not None and shapes.tobytes() not in seen:
                seen.add(shapes.tobytes())
                family = font.getname()[0] or path.stem
                found.append((str(path), index, family, _draws_marks(font)))
                drawn.append(_centred(shapes))
            if path.suffix.lower() not in {".ttc", ".otc"}:
                break
    plain = _shapes(open_face(BUILTIN_PATH, 0, _CHECK_SIZE_PX))
    if plain is None:
        raise RuntimeError("Pillow's built-in face does not draw the alphabet")
    # With few faces the average leans on one that is known to be ordinary.
    average = np.mean([*drawn, *[_centred(plain)] * 5], axis=0, dtype=np.float32)
    average /= np.linalg.norm(average, axis=1, keepdims=True)
    graded = (
        FontFace(path, index, family, _agreement(shapes, average), marks)
        for (path, index, family, marks), shapes in zip(found, drawn, strict=True)
    )
    return tuple(face for face in graded if face.plainness >= _MIN_PLAINNESS)


def _draw_glyph(font: ImageFont.FreeTypeFont, char: str) -> NDArray[np.uint8]:
    side = 3 * _CHECK_SIZE_PX
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).text((side // 3, 2 * side // 3), char, font=font, fill=255, anchor="ls")
    return np.asarray(canvas)


def _draws_marks(font: ImageFont.FreeTypeFont) -> bool:
    """Whether the marks of prices, times and sentences are there and as low or narrow as usual."""
    for char in MARKS:
        rows, columns = np.nonzero(_draw_glyph(font, char) > 96)
        if not len(rows):
            return False
        high, wide = (np.ptp(rows) + 1) / _CHECK_SIZE_PX, (np.ptp(columns) + 1) / _CHECK_SIZE_PX
        if wide > 1.3:
            return False
        if char in "-.,'\"" and high > (0.3 if char == "-" else 0.55):
            return False
        if char in ".-" and high * wide >= 0.2:
            return False
    return True


def _shapes(font: ImageFont.FreeTypeFont) -> NDArray[np.float32] | None:
    """Every letter and digit, cut to its ink and resized to a small square.

    Returns:
        [62, cells, cells] in 0..1, or None where a glyph is empty, absurdly small or large, is
        the face's missing-glyph box, or equals another letter of its case.
    """
    missing = {_draw_glyph(font, char).tobytes() for char in ("\uffff", "\ue6f3")}
    shapes: list[NDArray[np.float32]] = []
    groups: list[set[bytes]] = [set(), set(), set()]
    for char in ALPHANUMERICS:
        glyph = _draw_glyph(font, char)
        rows, columns = np.nonzero(glyph > 96)
        if not len(rows):
            return None
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        if not (0.15 <= height / _CHECK_SIZE_PX <= 1.7 and width / _CHECK_SIZE_PX <= 2.0):
            return None
        drawn = glyph.tobytes()
        group = groups[0 if char.islower() else 1 if char.isupper() else 2]
        if drawn in missing or drawn in group:
            return None
        group.add(drawn)
        ink = Image.fromarray(glyph[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
        small = ink.resize((_SHAPE_CELLS, _SHAPE_CELLS), Image.Resampling.BOX)
        shapes.append(np.asarray(small, dtype=np.float32) / 255.0)
    return np.stack(shapes)


def _centred(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """[62, cells**2], softened, each letter of zero mean and unit length."""
    padded = np.pad(shapes, ((0, 0), (1, 1), (1, 1)))
    soft = padded[:, 1:-1] * 2 + padded[:, :-2] + padded[:, 2:]
    soft = soft[:, :, 1:-1] * 2 + soft[:, :, :-2] + soft[:, :, 2:]
    flat = soft.reshape(len(soft), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(
        flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), dtype=np.float32
    )


def _agreement(shapes: NDArray[np.float32], average: NDArray[np.float32]) -> float:
    """Mean correlation with the average letters; a capital counts for its small letter."""
    own = (shapes * average).sum(axis=1)
    # Faces with capitals or small capitals in place of small letters are good sign lettering.
    own[:26] = np.maximum(own[:26], (shapes[:26] * average[26:52]).sum(axis=1))
    # Greek faces under Latin names: most letters look right, a few are others altogether.
    if np.percentile(own, 10) < 0.0:
        return 0.0
    return round(float(np.clip(own.mean(), 0.0, 1.0)), 4)
