"""Which words count and which readings are right, by the rules of ICDAR 2015.

Two variants: the organisers' own script (RRC, incidental scene text, task 4) and Open Model Zoo's
accuracy checker of text-spotting-0003's time (AC), which published the models' figures. Word
spotting leaves out numbers, codes and short words, and end-to-end asks for punctuation that the
models' alphabet lacks; so there is a task of our own, which compares every word by its a-z and 0-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from textspot_ray.evaluation.ground_truth import DONT_CARE, GtWord

_SPECIAL = "'!?.:,*\"()·[]/"
_RANGES = (("a", "z"), ("A", "Z"), ("À", "ƿ"), ("Ǆ", "ɿ"), ("Ά", "Ͽ"), ("-", "-"))
_EXCLUDED = "×÷·"
_MIN_CARE_LENGTH = 3
_HALF = 0.5


class ScoringTask(StrEnum):
    """What is measured."""

    WORD_SPOTTING = "word-spotting"  # letters-only words of 3 and more
    END_TO_END = "end-to-end"  # every transcribed word
    DETECTION = "detection"  # boxes alone
    ALPHANUMERIC = "alphanumeric"  # every word by its a-z and 0-9 alone: this project's own


class Variant(StrEnum):
    """Whose rules."""

    RRC = "rrc"
    ACCURACY_CHECKER = "accuracy-checker"


_RRC_ONLY = (ScoringTask.END_TO_END, ScoringTask.ALPHANUMERIC)


@dataclass(frozen=True, slots=True)
class Rules:
    """A task under a variant's rules.

    Attributes:
        task: What is measured.
        variant: RRC compares with > and lets a right box with a wrong text use up the word;
            the accuracy checker compares with >= and leaves both free.
    """

    task: ScoringTask = ScoringTask.WORD_SPOTTING
    variant: Variant = Variant.RRC

    def __post_init__(self) -> None:
        if self.variant is Variant.ACCURACY_CHECKER and self.task in _RRC_ONLY:
            raise ValueError(f"the accuracy checker has no {self.task.value} mode")

    def is_enough(self, overlap: float) -> bool:
        """Whether an overlap makes a pair, or a prediction part of a don't-care region.

        Args:
            overlap: Intersection over union, or the share of a prediction's area in the region.
        """
        return overlap > _HALF if self.variant is Variant.RRC else overlap >= _HALF

    @property
    def consumes(self) -> bool:
        """Whether a pair with the wrong text uses up both sides."""
        return self.variant is Variant.RRC

    def wanted_text(self, word: GtWord) -> str | None:
        """The text to compare with, or None for a don't-care region."""
        text = word.text
        if self.variant is Variant.ACCURACY_CHECKER:
            text = text.rsplit(",", maxsplit=1)[-1]  # its parser of 2020 split the line at commas
        if text == DONT_CARE:
            return None
        if self.task is ScoringTask.WORD_SPOTTING:
            return spotting_text(text)
        if self.task is ScoringTask.ALPHANUMERIC:
            return alphanumeric_text(text)
        return text

    def same_text(self, wanted: str, read: str) -> bool:
        """Whether a reading counts as right; always so for detection."""
        if self.task is ScoringTask.DETECTION:
            return True
        if self.variant is Variant.ACCURACY_CHECKER:
            return wanted.lower() == read.lower()
        if self.task is ScoringTask.WORD_SPOTTING:
            return wanted.upper() == read.upper()
        if self.task is ScoringTask.ALPHANUMERIC:
            return wanted == alphanumeric_text(read)
        return _same_except_ends(wanted.upper(), read.upper())


def spotting_text(text: str) -> str | None:
    """The text that word spotting compares, or None for don't care.

    A final 's and hyphens at the ends are removed, special characters become spaces; what then has
    an inner space, fewer than three characters, or anything but letters and hyphens is don't care.
    """
    if text[-2:] in ("'s", "'S"):
        text = text[:-2]
    text = text.strip("-")
    for character in _SPECIAL:
        text = text.replace(character, " ")
    text = text.strip()
    if " " in text or len(text) < _MIN_CARE_LENGTH:
        return None
    if not all(_allowed(character) for character in text):
        return None
    return text


def alphanumeric_text(text: str) -> str | None:
    """The word's letters a-z, in lower case, and digits; None for don't care.

    A word without any of them, or with another letter or digit, is don't care.
    """
    kept = "".join(c for c in text.lower() if c.isalnum())
    return kept if kept and kept.isascii() else None


def _allowed(character: str) -> bool:
    return character not in _EXCLUDED and any(low <= character <= high for low, high in _RANGES)


def _same_except_ends(wanted: str, read: str) -> bool:
    """Equal, except for one special character at either end of the ground truth."""
    if wanted == read:
        return True
    if not wanted:
        return False
    first, last = wanted[0] in _SPECIAL, wanted[-1] in _SPECIAL
    return (
        (first and wanted[1:] == read)
        or (last and wanted[:-1] == read)
        or (first and last and wanted[1:-1] == read)
    )
