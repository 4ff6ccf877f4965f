"""A page in the making: ink and words set on it, and where their faces and texts come from."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ImageFont import FreeTypeFont

from jobs.training.render.fonts import FontFace, FontLibrary
from jobs.training.render.lettering import draw_word
from jobs.training.render.words import Vocabulary, target_of

Pixels = NDArray[np.uint8]

_MONO = ("mono", "courier", "typew", "vt323", "cutive", "ocr", "dot", "term", "monoid")
_PLAIN_FACE = 0.72
_INKED = 60  # coverage (of 255) from which a pixel is taken
_TAKEN = 0.08  # share of a word's place that ink may cover before the word goes there


@dataclass(slots=True)
class Sheet:
    """A page in the making.

    Attributes:
        width: Of the page, px.
        height: Of the page, px; it is cut where the text ends.
        image: The paper and what is printed in colour, BGR.
        ink: Coverage of the dark ink, laid at the end.
        words: Ink boxes and texts so far.
        bottom: Lowest row used.
    """

    width: int
    height: int
    image: Pixels = field(init=False)
    ink: Pixels = field(init=False)
    words: list[tuple[NDArray[np.float32], str]] = field(default_factory=list)
    bottom: int = 0

    def __post_init__(self) -> None:
        self.image = np.full((self.height, self.width, 3), 255, np.uint8)
        self.ink = np.zeros((self.height, self.width), np.uint8)

    def write(
        self,
        font: FreeTypeFont,
        x: float,
        baseline: float,
        text: str,
        *,
        spacing: float = 0.0,
        space: float | None = None,
        stretch: float = 1.0,
        anchor: float = 0.0,
    ) -> float:
        """Write words (parted by blanks) on a line, but for those that leave the page or that
        would lie over others.

        Args:
            font: The face at its size.
            x: Where the line starts (anchor 0), has its middle (0.5) or ends (1).
            baseline: Row of the baseline.
            text: What to write.
            spacing: Extra columns after every letter.
            space: Columns between words; the face's own when None.
            stretch: Height of the letters over the face's own, as printers double it.
            anchor: See x.

        Returns:
            Where the line ended.
        """
        space = font.getlength(" ") + spacing if space is None else space
        inks = [(part, draw_word(font, part, spacing)) for part in text.split()]
        total = sum(ink.advance for _, ink in inks if ink) + space * (len(inks) - 1)
        x -= anchor * total
        for part, ink in inks:
            if ink is None:
                continue
            mask = ink.mask
            if stretch != 1.0:
                high = max(1, round(mask.shape[0] * stretch))
                mask = np.asarray(cv2.resize(mask, (mask.shape[1], high)), np.uint8)
            x0, y0 = round(x + ink.left), round(baseline + ink.top * stretch)
            y1, x1 = y0 + mask.shape[0], x0 + mask.shape[1]
            x += ink.advance + space
            if x0 < 0 or y0 < 0 or x1 > self.width or y1 > self.height:
                continue
            window = self.ink[y0:y1, x0:x1]
            if (window > _INKED).mean() > _TAKEN:
                continue
            np.maximum(window, mask, out=window)
            self.bottom = max(self.bottom, y1)
            if target_of(part):
                self.words.append((np.array([x0, y0, x1, y1], np.float32), part))
        return x - space

    def rule(self, x0: float, y0: float, x1: float, y1: float, px: int) -> None:
        """A straight line of ink.

        Args:
            x0: Column where it starts.
            y0: Row where it starts.
            x1: Column where it ends.
            y1: Row where it ends.
            px: How thick it is.
        """
        start, end = (round(x0), round(y0)), (round(x1), round(y1))
        cv2.line(self.ink, start, end, 255, px)
        self.bottom = max(self.bottom, min(self.height, round(max(y0, y1)) + 1))


@dataclass(frozen=True, slots=True)
class PageSource:
    """Chance, faces and words of a page."""

    rng: np.random.Generator
    fonts: FontLibrary
    words: Vocabulary

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self.rng.integers(n))

    def chance(self, share: float) -> bool:
        """True so often."""
        return bool(self.rng.random() < share)

    def uniform(self, low: float, high: float) -> float:
        """A number between."""
        return float(self.rng.uniform(low, high))

    def one(self, texts: Sequence[str]) -> str:
        """One of several texts."""
        return texts[self.below(len(texts))]

    def face(self, *, mono: bool = False) -> FontFace:
        """A plain face, one of typewriters or tills where asked for and there."""
        face = self.fonts.draw(self.rng, "1.")
        for _ in range(60 if mono else 20):
            fits = any(part in face.family.lower() for part in _MONO) if mono else True
            if fits and (face.plainness >= _PLAIN_FACE or mono):
                break
            face = self.fonts.draw(self.rng, "1.")
        return face

    def digits(self, n: int) -> str:
        """n digits."""
        return "".join(str(self.below(10)) for _ in range(n))

    def money(self) -> str:
        """A price, as tills print it."""
        whole = int(np.exp(self.rng.uniform(0, 6.5)))
        text = f"{whole}.{self.digits(2)}"
        pick = self.rng.random()
        if pick < 0.08:
            return f"RM{text}"
        if pick < 0.14:
            return f"${text}"
        if pick < 0.18:
            return f"-{text}"
        return f"{whole:,}.{self.digits(2)}" if pick < 0.3 else text

    def number(self) -> str:
        """A date, time, telephone, order or item number."""
        kind = self.below(8)
        if kind == 0:
            mark = self.one(("/", "-", ".", "/"))
            year = self.one(("2017", "2018", "17", "18", "1994", "2024", "96"))
            return f"{1 + self.below(28):02d}{mark}{1 + self.below(12):02d}{mark}{year}"
        if kind == 1:
            half = self.one(("", "", ":" + self.digits(2), "PM", "AM"))
            return f"{self.below(24):02d}:{self.below(60):02d}{half}"
        if kind == 2:
            return f"0{self.below(10)}-{self.digits(4)}{self.one(('', ' ', '-'))}{self.digits(4)}"
        if kind == 3:
            letters = "".join(self.one(string.ascii_uppercase) for _ in range(1 + self.below(3)))
            return letters + self.one(("", "-", "#")) + self.digits(3 + self.below(6))
        if kind == 4:
            return self.digits(6 + self.below(8))
        if kind == 5:
            return f"({self.digits(3)}) {self.digits(3)}-{self.digits(4)}"
        return self.digits(1 + self.below(5))

    def word(self, own: Sequence[str], share: float = 0.5) -> str:
        """A word of this sort of page, or any."""
        if self.rng.random() < share:
            return self.one(own)
        return self.words.draw(self.rng, 13)

    def cased(self, text: str, upper: float) -> str:
        """All capitals so often, otherwise a capital first or none."""
        pick = self.rng.random()
        if pick < upper:
            return text.upper()
        return (
            text[:1].upper() + text[1:].lower() if pick < upper + (1 - upper) / 2 else text.lower()
        )
