"""How like two readings are, to a reader: confusions of similar shapes cost half an edit."""

from __future__ import annotations

# each group's members look alike in print; a character is in one group only, so that folding
# every character to its group's first never makes two texts farther apart
CONFUSIONS = ("0oq", "1li", "2z", "5s", "8b", "9g", "uv")
CONFUSION_COST = 0.5
_GROUP = {character: group[0] for group in CONFUSIONS for character in group}
FOLD_FROM = "".join(group[1:] for group in CONFUSIONS)
FOLD_TO = "".join(group[0] * (len(group) - 1) for group in CONFUSIONS)


def fold(text: str) -> str:
    """Every character as the first of its group."""
    return "".join(_GROUP.get(character, character) for character in text)


def ocr_distance(a: str, b: str) -> float:
    """Edit distance in which swapping characters of one group costs `CONFUSION_COST`.

    >>> ocr_distance("r00m", "room"), ocr_distance("room", "roan")
    (1.0, 2.0)
    """
    previous = [float(n) for n in range(len(b) + 1)]
    for i, ca in enumerate(a, start=1):
        current = [float(i)]
        for j, cb in enumerate(b, start=1):
            current.append(
                min(
                    previous[j] + 1,
                    current[j - 1] + 1,
                    previous[j - 1] + _substitution(ca, cb),
                )
            )
        previous = current
    return previous[-1]


def _substitution(a: str, b: str) -> float:
    if a == b:
        return 0.0
    return CONFUSION_COST if _GROUP.get(a, a) == _GROUP.get(b, b) else 1.0
