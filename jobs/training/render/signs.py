"""What signs say and how they are laid out: shop names, notices, posters, plates, price tags."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from jobs.training.render.fonts import FontLibrary
from jobs.training.render.lettering import Lettering, bend, set_lines
from jobs.training.render.words import Vocabulary

# A capital's height over the type size, about the same in all ordinary faces.
CAP_HEIGHT = 0.70
_DRAW_SIZES_PX = (40, 80, 160)


class SignKind(Enum):
    """Sorts of lettered things."""

    NAME = "one line over a shop, one to three words"
    NOTICE = "two to five lines of one size"
    POSTER = "a headline over many small lines"
    PLATE = "one number or code on a small plate"
    LABEL = "one or two words straight on the wall"


@dataclass(frozen=True, slots=True)
class Block:
    """Lettering in one face at one size, placed on a sign.

    Attributes:
        lettering: Drawn at its own scale.
        scale: Sign pixels per pixel of the lettering's mask.
        stretch: Extra factor on widths.
        x: Left edge on the sign, px.
        y: Top edge on the sign, px.
        cap_px: Height of its capitals on the sign.
    """

    lettering: Lettering
    scale: float
    stretch: float
    x: float
    y: float
    cap_px: float


@dataclass(frozen=True, slots=True)
class Sign:
    """A lettered plane, in its own pixels (as large as seen from straight in front).

    Attributes:
        kind: What sort of sign it is.
        blocks: Its lettering, from top to bottom.
        width: Panel width.
        height: Panel height.
        panel: Whether there is a panel, or only letters on what is behind.
    """

    kind: SignKind
    blocks: tuple[Block, ...]
    width: float
    height: float
    panel: bool


def _draw_lines(
    rng: np.random.Generator, words: Vocabulary, lines: int, per_line: int, max_chars: int
) -> list[list[str]]:
    texts = []
    for _ in range(lines):
        count = int(rng.integers(1, per_line + 1))
        texts.append([words.draw(rng, max_chars) for _ in range(count)])
    if rng.random() < 0.5:
        # Most signs keep to one case.
        upper = rng.random() < 0.6
        texts = [
            [t.upper() if upper else t[:1].upper() + t[1:].lower() for t in ln] for ln in texts
        ]
    return texts


def _set_block(
    rng: np.random.Generator,
    fonts: FontLibrary,
    lines: list[list[str]],
    cap_px: float,
    difficulty: float,
    align: float,
) -> tuple[Lettering, float, float] | None:
    """Lettering, its scale and its stretch."""
    type_px = cap_px / CAP_HEIGHT
    size = next((px for px in _DRAW_SIZES_PX if px >= 0.8 * type_px), _DRAW_SIZES_PX[-1])
    spacing = 0.0
    if difficulty > 0.02 and rng.random() < 0.3:
        spacing = size * float(rng.uniform(0.01, 0.2))
    everything = "".join(word for line in lines for word in line)
    lettering = set_lines(
        fonts.open(fonts.draw(rng, everything), size),
        lines,
        spacing_px=spacing,
        space_px=spacing + size * float(rng.uniform(0.22, 0.5)),
        leading_px=size * float(rng.uniform(1.05, 1.6)),
        align=align,
    )
    if lettering is None:
        return None
    if len(lines) == 1 and difficulty > 0.3 and rng.random() < 0.05:
        lettering = bend(lettering, size * float(rng.uniform(-0.3, 0.3)))
    stretch = float(np.exp(rng.normal(-0.15, 0.16) * min(1.0, 2 * difficulty)))
    return lettering, type_px / size, stretch


def compose_sign(
    rng: np.random.Generator,
    kind: SignKind,
    cap_px: float,
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    smallest_cap_px: float = 5.0,
) -> Sign | None:
    """Lay out one sign.

    Args:
        rng: Where chance comes from.
        kind: What sort of sign.
        cap_px: Height of capitals of its main lettering.
        difficulty: 0 keeps to plain setting.
        fonts: Faces to draw with.
        words: What to write.
        smallest_cap_px: No lettering is set smaller.

    Returns:
        The sign, or None where the chosen face drew nothing.
    """
    align = float(rng.choice([0.0, 0.5, 0.5, 1.0], p=[0.35, 0.3, 0.3, 0.05]))
    plan: list[tuple[list[list[str]], float]] = []
    if kind is SignKind.NAME:
        plan.append((_draw_lines(rng, words, 1, 3, 12), cap_px))
        if rng.random() < 0.3:
            plan.append((_draw_lines(rng, words, 1, 4, 12), cap_px * float(rng.uniform(0.3, 0.6))))
    elif kind is SignKind.NOTICE:
        plan.append((_draw_lines(rng, words, int(rng.integers(2, 6)), 3, 12), cap_px))
    elif kind is SignKind.POSTER:
        plan.append((_draw_lines(rng, words, int(rng.integers(1, 3)), 2, 10), cap_px))
        for _ in range(int(rng.integers(1, 3))):
            # Often the small print, to be read from close by only.
            small = cap_px * float(
                rng.uniform(0.15, 0.4) if rng.random() < 0.4 else rng.uniform(0.4, 0.7)
            )
            plan.append((_draw_lines(rng, words, int(rng.integers(2, 7)), 4, 12), small))
    elif kind is SignKind.PLATE:
        plan.append(([[words.draw_code(rng)]], cap_px))
    else:
        plan.append((_draw_lines(rng, words, 1, 2, 14), cap_px))
    blocks: list[Block] = []
    y = 0.0
    for lines, cap in plan:
        cap = max(cap, smallest_cap_px)
        made = _set_block(rng, fonts, lines, cap, difficulty, align)
        if made is None:
            return None
        lettering, scale, stretch = made
        blocks.append(Block(lettering, scale, stretch, 0.0, y, cap))
        y += lettering.mask.shape[0] * scale + cap * float(rng.uniform(0.1, 1.0))
    widths = [b.lettering.mask.shape[1] * b.scale * b.stretch for b in blocks]
    pad_x, pad_y = (cap_px * float(v) for v in rng.uniform(0.1, 1.0, 2))
    inner = max(widths)
    last = blocks[-1]
    placed = tuple(
        Block(b.lettering, b.scale, b.stretch, pad_x + align * (inner - w), pad_y + b.y, b.cap_px)
        for b, w in zip(blocks, widths, strict=True)
    )
    height = last.y + last.lettering.mask.shape[0] * last.scale
    panel = kind is not SignKind.LABEL and rng.random() < 0.85
    return Sign(kind, placed, inner + 2 * pad_x, height + 2 * pad_y, panel)


def block_boxes(block: Block) -> NDArray[np.float32]:
    """[n, 4] ink boxes of a block's words in the sign's pixels."""
    scale = np.array([block.scale * block.stretch, block.scale] * 2, np.float32)
    corner = np.array([block.x, block.y] * 2, np.float32)
    return np.asarray(block.lettering.boxes * scale + corner, np.float32)
