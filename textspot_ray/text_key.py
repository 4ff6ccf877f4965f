"""The form of a text that look-ups compare: no case, no accents, no punctuation."""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, combining, normalize

_NOT_ALNUM = re.compile(r"[^0-9a-z]+")
# Combining classes of marks that are accents or points on a letter: 10 to 36 are Hebrew, Arabic
# and Syriac points, 200 and above the attached, below and above marks of all scripts. Classes in
# between and 0 hold vowel signs, viramas, tone marks and voicing marks (Unicode chapter 4.3,
# table 4-3): without them other words would be left.
_POINTS = range(10, 37)
_FIRST_ACCENT = 200


@lru_cache(maxsize=65_536)
def text_key(text: str) -> str:
    """Fold a text for look-ups.

    Compatibility decomposition (NFKD), then accents and everything but letters, digits and the
    vowel signs of a script are dropped, then case folding. The key of a key is itself; the key of
    a text that is all punctuation is empty. Of two texts of which one begins with the other, so
    do the keys.

    >>> text_key("Café-Bar"), text_key("ＡＢＣ１２"), text_key("Straße"), text_key("&")
    ('cafebar', 'abc12', 'strasse', '')
    """
    if text.isascii():
        return _NOT_ALNUM.sub("", text.lower())
    letters = "".join(c for c in normalize("NFKD", text) if _stays(c))
    folded = normalize("NFKD", letters.casefold())
    return normalize("NFC", "".join(c for c in folded if _stays(c)))


def _stays(character: str) -> bool:
    kind = category(character)
    if kind[0] in "LN":
        return True
    if kind not in ("Mn", "Mc"):
        return False
    place = combining(character)
    if place in _POINTS or place >= _FIRST_ACCENT:
        return False
    # Joiners and variation selectors are marks by category only.
    return not (
        "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or character in "\u034f\u180b\u180c\u180d\u180f"
    )
