"""Rendered documents: receipts, letters, forms, screens and packages' labels, with their words.

Pages are set at the size they are seen at, letters of 9 to 40 px: dense small text, columns of
prices, rules and boxes, bar codes, stamps, inverted bars. What a printer and a scanner do comes
after: gaps of a thermal head, faint ink, a threshold, a slight turn, a photograph's light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ImageFont import FreeTypeFont

from jobs.training.render import photometry
from jobs.training.render.fonts import FontLibrary
from jobs.training.render.homography import box_corners, side_lengths
from jobs.training.render.placing import LEGIBLE_PX, SceneWord
from jobs.training.render.printing import bilevel, inverted, laid_down, printed, stamped
from jobs.training.render.scenes import Scene
from jobs.training.render.sheets import PageSource, Sheet
from jobs.training.render.surfaces import BackgroundLibrary
from jobs.training.render.words import Vocabulary

Pixels = NDArray[np.uint8]

_RECEIPT_TEXT = """
total subtotal sub cash change qty price amount item items tax gst sst vat invoice receipt no date
time cashier counter table tel fax reg company co sdn bhd ltd thank you please come again goods sold
are not returnable refundable exchange within days card visa master credit debit rounding adjustment
discount disc net gross inclusive description unit code sr zr summary document bill member points
customer signature approved terminal ref tender paid balance due save today welcome visit jalan
taman road street lot floor mart trading enterprise hardware stationery restaurant cafe pharmacy
book store supermarket welcome address id s/n rm usd eur
"""
_RECEIPT = tuple(_RECEIPT_TEXT.split())
_FORM_TEXT = """
name address date city state zip code phone telephone fax number no of the to from subject company
department title signature approved by received copies attention re page pages total amount cost
project product brand sample type description comments remarks purpose region division manager
account budget estimate test report file employee contract period start end yes please print attach
required information form request quantity unit price order purchase shipping ship via
"""
_FORM = tuple(_FORM_TEXT.split())
_LITTLE_TEXT = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had
an they which one you were her all she there would their we him been has when who will more no if so
"""
_LITTLE = tuple(_LITTLE_TEXT.split())


class PageKind(Enum):
    """Sorts of documents."""

    RECEIPT = "a till receipt"
    LETTER = "paragraphs in one or two columns"
    FORM = "labels with rules, boxes and what was filled in"
    SCREEN = "windows, buttons, tables"
    LABEL = "a package's label: sizes mixed, inverted bars"


SHARES: Mapping[PageKind, float] = {
    PageKind.RECEIPT: 0.36,
    PageKind.LETTER: 0.16,
    PageKind.FORM: 0.24,
    PageKind.SCREEN: 0.12,
    PageKind.LABEL: 0.12,
}


def _receipt(s: PageSource) -> Sheet:
    width = 330 + s.below(270)
    sheet = Sheet(width, 1500)
    mono = s.chance(0.6)
    face = s.face(mono=mono)
    columns = s.uniform(28, 46)
    size = max(11, round(width * 0.92 / columns / 0.6))
    font = s.fonts.open(face, size)
    large = s.fonts.open(face if s.chance(0.6) else s.face(), round(size * s.uniform(1.1, 1.7)))
    lead = size * s.uniform(1.05, 1.5)
    upper = float(s.rng.choice([1.0, 1.0, 0.7, 0.2]))
    margin = width * s.uniform(0.02, 0.08)
    spacing = size * s.uniform(-0.02, 0.06) if s.chance(0.3) else 0.0
    tall = s.uniform(1.5, 2.0) if s.chance(0.15) else 1.0
    y = lead * 1.5

    def text(n: int, share: float = 0.5) -> str:
        case = 1.0 if s.chance(upper) else 0.1
        return " ".join(s.cased(s.word(_RECEIPT, share), case) for _ in range(n))

    def line(
        content: str, x: float, anchor: float, face: FreeTypeFont = font, high: float = 1.0
    ) -> None:
        sheet.write(face, x, y, content, spacing=spacing, anchor=anchor, stretch=high)

    def separator() -> None:
        mark = s.one(("-", "=", "*", "_", ".", "rule"))
        if mark == "rule":
            sheet.rule(margin, y - size * 0.3, width - margin, y - size * 0.3, 1 + s.below(2))
        else:
            n = int((width - 2 * margin) / max(font.getlength(mark) + spacing, 2))
            line(mark * max(n, 3), margin, 0.0)

    for _ in range(1 + s.below(2)):
        line(text(1 + s.below(3), 0.3), width / 2, 0.5, large, tall)
        y += lead * 1.25 * tall
    for _ in range(1 + s.below(5)):
        content = text(2 + s.below(3), 0.4) + (" " + s.number() if s.chance(0.5) else "")
        line(content, width / 2, 0.5)
        y += lead
    for _ in range(1 + s.below(5)):
        mark = s.one((":", " :", "", "#", "."))
        line(f"{text(1 + s.below(2), 0.9)}{mark} {s.number()}", margin, 0.0)
        if s.chance(0.4):
            line(s.number(), width - margin, 1.0)
        y += lead
    separator()
    y += lead
    for _ in range(1 + s.below(10)):
        two = s.chance(0.4)
        line(
            (s.digits(1 + s.below(13)) + " " if s.chance(0.4) else "") + text(1 + s.below(3), 0.1),
            margin,
            0.0,
        )
        if two:
            y += lead
            line(
                f"{1 + s.below(9)} {s.one(('x', 'X', '@', '*', ''))} {s.money()}",
                margin + size * 2,
                0.0,
            )
        line(s.money() + s.one(("", "", " SR", " S", " Z", "T")), width - margin, 1.0)
        y += lead
    separator()
    y += lead
    for _ in range(2 + s.below(5)):
        big = s.chance(0.25)
        line(
            text(1 + s.below(3), 0.95) + s.one((":", "", " :")),
            margin + width * s.uniform(0, 0.3),
            0.0,
            large if big else font,
        )
        line(s.money(), width - margin, 1.0, large if big else font)
        y += lead * (1.3 if big else 1.0)
    if s.chance(0.5):
        y = _bars(s, sheet, y, lead, font)
    for _ in range(s.below(5)):
        line(text(2 + s.below(4), 0.6), width / 2, 0.5)
        y += lead
    return sheet


def _bars(s: PageSource, sheet: Sheet, y: float, lead: float, font: FreeTypeFont) -> float:
    """A bar code or a square one, with its number below it now and then; the next line's row."""
    high = lead * s.uniform(1.5, 3.5)
    wide = sheet.width * s.uniform(0.3, 0.75)
    x = (sheet.width - wide) * s.uniform(0.1, 0.9)
    if y + high + lead > sheet.height:
        return y
    if s.chance(0.25):
        n = 21 + s.below(12)
        cells = (s.rng.random((n, n)) < 0.5).astype(np.uint8) * 255
        side = max(n, round(min(high * 1.8, wide)))
        if y + side >= sheet.height or x + side >= sheet.width:
            return y
        code = cv2.resize(cells, (side, side), interpolation=cv2.INTER_NEAREST)
        sheet.ink[round(y) : round(y) + side, round(x) : round(x) + side] = code
        return y + side + lead
    at = x
    while at < x + wide:
        bar = float(1 + s.below(3))
        cv2.rectangle(
            sheet.ink, (round(at), round(y)), (round(at + bar) - 1, round(y + high)), 255, -1
        )
        at += bar + 1 + s.below(3)
    y += high + lead * 0.9
    if s.chance(0.7):
        sheet.write(
            font, x + wide / 2, y, s.digits(8 + s.below(6)), anchor=0.5, spacing=s.uniform(0, 4)
        )
        y += lead
    return y


def _prose(s: PageSource, own: Sequence[str]) -> Callable[[], str]:
    """A source of running text, word after word, with sentences' capitals and marks."""
    first = [True]

    def following() -> str:
        pick = s.rng.random()
        if pick < 0.35:
            text = s.one(_LITTLE)
        elif pick < 0.43:
            text = s.number().replace(" ", "")
        elif pick < 0.5:
            text = s.one(own)
        else:
            text = s.words.draw(s.rng, 14, plain=True)
            text = text.lower() if s.chance(0.85) else text
        if first[0]:
            text, first[0] = text[:1].upper() + text[1:], False
        if s.chance(0.1):
            first[0] = True
            return text + s.one((".", ".", ".", "?", "!"))
        return text + s.one((",", ";", ":", "-")) if s.chance(0.08) else text

    return following


def _paragraph(
    s: PageSource,
    sheet: Sheet,
    font: FreeTypeFont,
    area: tuple[float, float],
    y: float,
    lines: int,
    lead: float,
    own: Sequence[str],
) -> float:
    """Set lines of text between two columns of the page; the next line's row."""
    x0, x1 = area
    following = _prose(s, own)
    gap = font.getlength(" ")
    justified = s.chance(0.4)
    for _ in range(lines):
        parts: list[str] = []
        total = 0.0
        while total < x1 - x0:
            part = following()
            wide = font.getlength(part)
            if total + wide > x1 - x0:
                break
            parts.append(part)
            total += wide + gap
        slack = (x1 - x0 - total + gap) / max(1, len(parts) - 1)
        space = gap + slack if justified and slack < 3 * gap else gap
        sheet.write(font, x0, y, " ".join(parts), space=space)
        y += lead
        if y > sheet.height - lead:
            break
    return y


def _letter(s: PageSource) -> Sheet:
    sheet = Sheet(620 + s.below(340), 560 + s.below(560))
    size = 13 + s.below(12)
    face = s.face(mono=s.chance(0.25))
    font = s.fonts.open(face, size)
    lead = size * s.uniform(1.05, 1.6)
    columns = 1 if s.chance(0.7) else 2
    margin = sheet.width * s.uniform(0.04, 0.12)
    wide = (sheet.width - (columns + 1) * margin) / columns
    top = lead * 2
    if s.chance(0.6):
        head = s.fonts.open(s.face(), round(size * s.uniform(1.3, 2.4)))
        title = " ".join(s.cased(s.words.draw(s.rng, 12), 0.5) for _ in range(1 + s.below(4)))
        top += head.size
        sheet.write(head, sheet.width / 2, top, title, anchor=0.5)
        top += 2 * lead
    for column in range(columns):
        x = margin + column * (wide + margin)
        y = top
        while y < sheet.height - 2 * lead:
            pick = s.rng.random()
            if pick < 0.15:
                y = _table(s, sheet, font, (x, x + wide), y, lead)
            elif pick < 0.25:
                bold = s.fonts.open(s.face(), round(size * 1.15))
                sheet.write(bold, x, y, f"{1 + s.below(9)}. {s.words.draw(s.rng, 12)}")
                y += 1.3 * lead
            else:
                y = _paragraph(s, sheet, font, (x, x + wide), y, 2 + s.below(8), lead, _FORM)
            y += lead * s.uniform(0.3, 1.2)
    return sheet


def _table(
    s: PageSource,
    sheet: Sheet,
    font: FreeTypeFont,
    area: tuple[float, float],
    y: float,
    lead: float,
) -> float:
    """Columns of names and numbers, ruled or not; the next line's row."""
    x0, x1 = area
    columns = 2 + s.below(5)
    rows = 2 + s.below(7)
    edges = np.linspace(x0, x1, columns + 1)
    ruled = s.chance(0.5)
    row_px = lead * s.uniform(1.0, 1.6)
    first = y - 0.8 * lead
    for _ in range(rows):
        if y > sheet.height - lead:
            break
        if ruled:
            sheet.rule(x0, y - row_px * 0.78, x1, y - row_px * 0.78, 1)
        for column in range(columns):
            if s.chance(0.12):
                continue
            if column == 0:
                text = s.cased(s.word(_FORM), 0.3)
            else:
                text = s.money() if s.chance(0.5) else s.number()
            room = edges[column + 1] - edges[column]
            if font.getlength(text) > 0.92 * room:
                continue
            if column:
                sheet.write(font, float(edges[column + 1]) - 4, y, text, anchor=1.0)
            else:
                sheet.write(font, float(edges[column]) + 4, y, text)
        y += row_px
    if ruled:
        for edge in edges:
            sheet.rule(float(edge), first, float(edge), y - row_px * 0.78, 1)
        sheet.rule(x0, y - row_px * 0.78, x1, y - row_px * 0.78, 1)
    return y


def _form(s: PageSource) -> Sheet:
    sheet = Sheet(600 + s.below(300), 560 + s.below(400))
    size = 12 + s.below(9)
    font = s.fonts.open(s.face(), size)
    bold = s.fonts.open(s.face(), size)
    typed = s.fonts.open(s.face(mono=s.chance(0.7)), round(size * s.uniform(0.95, 1.35)))
    lead = size * s.uniform(1.4, 2.2)
    y = lead * 1.5
    head = s.fonts.open(s.face(), round(size * s.uniform(1.2, 2.0)))
    title = " ".join(s.cased(s.word(_FORM, 0.6), 0.7) for _ in range(1 + s.below(4)))
    sheet.write(head, sheet.width * s.uniform(0.3, 0.6), y, title, anchor=0.5)
    y += 2 * lead
    margin = sheet.width * s.uniform(0.03, 0.1)
    while y < sheet.height - 2 * lead:
        pick = s.rng.random()
        if pick < 0.12:
            y = _table(s, sheet, font, (margin, sheet.width - margin), y, lead) + lead
            continue
        if pick < 0.22:
            last = sheet.width - margin
            y = _paragraph(s, sheet, font, (margin, last), y, 1 + s.below(4), 0.75 * lead, _FORM)
            y += 0.5 * lead
            continue
        fields = 1 + s.below(3)
        boxed = s.chance(0.3)
        for n in range(fields):
            x = margin + n * (sheet.width - 2 * margin) / fields
            end = margin + (n + 1) * (sheet.width - 2 * margin) / fields - 10
            if s.chance(0.12):
                side = round(size * 0.8)
                top = round(y) - side
                cv2.rectangle(sheet.ink, (round(x), top), (round(x) + side, round(y)), 255, 1)
                x += size * 1.3
            name = " ".join(s.cased(s.word(_FORM, 0.9), 0.4) for _ in range(1 + s.below(3)))
            reached = sheet.write(bold, x, y, name + s.one((":", ":", "", ".")))
            if boxed:
                sheet.rule(x - 5, y - lead * 0.7, end + 5, y - lead * 0.7, 1)
                sheet.rule(x - 5, y - lead * 0.7, x - 5, y + lead * 0.3, 1)
            elif s.chance(0.5):
                sheet.rule(reached + 5, y + 2, end, y + 2, 1)
            if s.chance(0.65) and reached < end - 40:
                words = [s.number() if s.chance(0.4) else s.cased(s.words.draw(s.rng, 12), 0.3)]
                words += [s.cased(s.words.draw(s.rng, 10), 0.3) for _ in range(s.below(3))]
                text = ""
                for word in words:
                    longer = f"{text} {word}".strip()
                    if reached + 10 + typed.getlength(longer) < end:
                        text = longer
                if text:
                    sheet.write(typed, reached + 10, y - s.uniform(0, 3), text)
        y += lead
    return sheet


def _screen(s: PageSource) -> Sheet:
    sheet = Sheet(640 + s.below(320), 420 + s.below(300))
    size = 12 + s.below(8)
    font = s.fonts.open(s.face(), size)
    lead = size * s.uniform(1.3, 2.0)
    bar = round(lead * 1.6)
    menu = " ".join(s.cased(s.words.draw(s.rng, 9, plain=True), 0.1) for _ in range(3 + s.below(5)))
    sheet.write(font, 12, bar * 0.65, menu, space=size * s.uniform(0.9, 2.0))
    sheet.rule(0, bar, sheet.width, bar, 1)
    side = sheet.width * s.uniform(0.15, 0.3)
    y = bar + lead * 1.2
    if s.chance(0.6):
        while y < sheet.height - lead and s.chance(0.92):
            sheet.write(font, 14, y, s.cased(s.words.draw(s.rng, 10, plain=True), 0.05))
            y += lead * s.uniform(1.0, 1.5)
        sheet.rule(side, bar, side, sheet.height, 1)
    y = bar + lead * 1.5
    while y < sheet.height - 2 * lead:
        pick = s.rng.random()
        if pick < 0.3:
            y = _table(s, sheet, font, (side + 12, sheet.width - 12), y, lead)
        elif pick < 0.6:
            y = _paragraph(
                s, sheet, font, (side + 12, sheet.width - 14), y, 1 + s.below(4), lead, _FORM
            )
        else:
            x = side + 14
            while x < sheet.width - 120:
                text = s.cased(s.words.draw(s.rng, 10, plain=True), 0.2)
                end = sheet.write(font, x + 10, y, text)
                top, low = (
                    (round(x), round(y - size * 1.1)),
                    (round(end + 10), round(y + size * 0.5)),
                )
                cv2.rectangle(sheet.ink, top, low, 160, 1)
                x = end + size * s.uniform(2, 4)
        y += lead * s.uniform(0.8, 1.6)
    return sheet


def _label(s: PageSource) -> Sheet:
    sheet = Sheet(380 + s.below(380), 380 + s.below(380))
    y = 10.0
    while y < sheet.height - 30:
        size = round(float(np.exp(s.uniform(np.log(13), np.log(85)))))
        face = s.face() if s.chance(0.8) else s.fonts.draw(s.rng, "a")
        font = s.fonts.open(face, size)
        y += size * s.uniform(0.9, 1.3)
        if y > sheet.height - 0.4 * size:
            break
        if size < 22 and s.chance(0.5):
            y = _paragraph(
                s, sheet, font, (12, sheet.width - 12), y, 1 + s.below(5), size * 1.2, _LITTLE
            )
            continue
        text = " ".join(s.words.draw(s.rng, 12) for _ in range(1 + s.below(3)))
        text = s.cased(text, 0.5)
        while text and font.getlength(text) > sheet.width - 20:
            text = text.rpartition(" ")[0]
        sheet.write(font, sheet.width / 2, y, text, anchor=0.5)
        if s.chance(0.12):
            y = _bars(s, sheet, y + 10, size, s.fonts.open(face, max(12, size // 2)))
    return sheet


_MAKERS: Mapping[PageKind, Callable[[PageSource], Sheet]] = {
    PageKind.RECEIPT: _receipt,
    PageKind.LETTER: _letter,
    PageKind.FORM: _form,
    PageKind.SCREEN: _screen,
    PageKind.LABEL: _label,
}


def render_document(
    rng: np.random.Generator,
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    backgrounds: BackgroundLibrary | None = None,
    kind: PageKind | None = None,
) -> Scene:
    """Render a page as a scanner, a screen or a camera gives it.

    Args:
        rng: Where all chance comes from.
        difficulty: 0 is a clean print; 1 has a bad printer's and a bad scanner's faults.
        fonts: Faces to draw with.
        words: What to write beside what such pages always say.
        backgrounds: What a photographed page lies on.
        kind: Of page; drawn by `SHARES` when None.
    """
    d = float(np.clip(difficulty, 0.0, 1.0))
    if kind is None:
        shares = np.array(list(SHARES.values()))
        kind = list(SHARES)[int(rng.choice(len(shares), p=shares / shares.sum()))]
    sheet = _MAKERS[kind](PageSource(rng, fonts, words))
    bottom = min(sheet.height, max(sheet.bottom + int(rng.integers(6, 40)), 120))
    sheet.image, sheet.ink = sheet.image[:bottom], sheet.ink[:bottom]
    colourful = kind in (PageKind.SCREEN, PageKind.LABEL)
    image = printed(rng, sheet, d, colourful)
    found = [SceneWord(box_corners(box), text, True) for box, text in sheet.words]
    image, found = inverted(rng, image, found, 0.5 if colourful else 0.15)
    if kind in (PageKind.RECEIPT, PageKind.FORM) and rng.random() < 0.2:
        image, found = stamped(rng, image, found, fonts, words)
    if kind is not PageKind.SCREEN:
        image, found = laid_down(rng, image, found, d, backgrounds)
    heights = sorted(side_lengths(word.quad)[1] for word in found) or [12.0]
    usual = max(9.0, heights[len(heights) // 4])
    if not colourful and rng.random() < 0.3 * d:
        image = bilevel(rng, image)
    image = photometry.photograph(rng, image, 0.75 * d, usual)
    kept = []
    for word in found:
        wide, high = side_lengths(word.quad)
        # what is low by itself (a, no, 1-2) stands among higher ones and can be read
        legible = word.legible and max(high, 0.4 * usual) >= 0.6 * LEGIBLE_PX and wide >= 3
        kept.append(SceneWord(word.quad, word.text, legible))
    return Scene(image, tuple(kept))
