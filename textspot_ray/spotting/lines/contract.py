"""The family's contract: what a DB detector, a CTC recogniser and a line classifier look like.

Tensors are identified by shape, not by name: a detector maps
[1, 3, H, W] to a map [1, 1, H, W] (sides multiples of 32), a recogniser [1, 3, 48, W] to
[1, W / 8, classes], a classifier [1, 3, 48, 192] to [1, 2] (upright, upside down). Class 0 of a
recogniser is CTC's blank, the last may be the space; the characters between them stand in the
ONNX file's metadata or in a text file, one a line.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import ALL, LATIN
from textspot_ray.spotting.lines.strips import STRIP_HEIGHT
from textspot_ray.spotting.tensors import dims, shapes
from textspot_ray.storage.faults import reason_of

STRIDE = 32  # a detector's sides are multiples of it


def check_detector(model: Any, where: str) -> None:
    """Check that a model maps an image of any size to one probability map.

    Args:
        model: An ``openvino.Model``.
        where: The file, for the message.

    Raises:
        BundleError: It does not.
    """
    inputs, outputs = [dims(p) for p in model.inputs], [dims(p) for p in model.outputs]
    right_in = len(inputs) == 1 and len(inputs[0]) == 4 and inputs[0][1] == 3
    right_out = len(outputs) == 1 and len(outputs[0]) == 4 and outputs[0][1] == 1
    if not (right_in and right_out and None in (inputs[0][2], inputs[0][3])):
        raise BundleError(
            f"{where} is not a text-line detector: it maps {shapes(model.inputs)} to "
            f"{shapes(model.outputs)}, wanted [?, 3, ?, ?] to a probability map [?, 1, ?, ?]"
        )


def check_recognizer(model: Any, where: str) -> None:
    """Check that a model reads strips 48 pixels high.

    Args:
        model: An ``openvino.Model``.
        where: The file, for the message.

    Raises:
        BundleError: It does not.
    """
    inputs, outputs = [dims(p) for p in model.inputs], [dims(p) for p in model.outputs]
    right_in = len(inputs) == 1 and len(inputs[0]) == 4 and inputs[0][1:3] == (3, STRIP_HEIGHT)
    right_out = len(outputs) == 1 and len(outputs[0]) == 3 and outputs[0][2] is not None
    if not (right_in and right_out and inputs[0][3] is None):
        raise BundleError(
            f"{where} is not a CTC recogniser of lines: it maps {shapes(model.inputs)} to "
            f"{shapes(model.outputs)}, wanted [?, 3, {STRIP_HEIGHT}, ?] to [?, ?, classes]"
        )


def reads_batches(model: Any) -> bool:
    """Whether a recogniser reads several strips at a time, a row of its output each.

    Some are exported for one strip, others put the steps before the strips.

    Args:
        model: An ``openvino.Model`` that `check_recognizer` let pass.
    """
    if dims(model.inputs[0])[0] is not None:
        return False
    of_two = model.clone()
    try:
        of_two.reshape([2, 3, STRIP_HEIGHT, 2 * STRIP_HEIGHT])
    except RuntimeError:
        return False
    return dims(of_two.outputs[0])[0] == 2


def check_characters(model: Any, where: str, characters: tuple[str, ...]) -> None:
    """Check that a recogniser's classes are as many as its characters.

    Args:
        model: An ``openvino.Model`` that `check_recognizer` let pass.
        where: The file, for the message.
        characters: By class, from `read_characters`.

    Raises:
        BundleError: The numbers differ.
    """
    classes = dims(model.outputs[0])[2]
    if classes != len(characters):
        raise BundleError(
            f"{where} has {classes} classes, but its character list gives "
            f"{len(characters)} (blank and space included): it is another model's list"
        )


def check_classifier(model: Any, where: str) -> None:
    """Check that a model distinguishes upright and upside-down lines.

    Raises:
        BundleError: It does not.
    """
    inputs, outputs = [dims(p) for p in model.inputs], [dims(p) for p in model.outputs]
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][1] != 3 or outputs[0][-1] != 2:
        raise BundleError(
            f"{where} is not a classifier of upside-down lines: it maps {shapes(model.inputs)} to "
            f"{shapes(model.outputs)}, wanted [?, 3, ?, ?] to [?, 2]"
        )


def read_characters(model: Any, where: str, listed: Path | None = None) -> tuple[str, ...]:
    """A recogniser's characters by class: "" for blank, then the list's, then the space.

    Args:
        model: An ``openvino.Model``.
        where: The model's file, for the message.
        listed: A text file of characters, one a line, instead of the model's metadata.

    Raises:
        BundleError: There is no list.
    """
    if listed is not None:
        try:
            text = listed.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise BundleError(f"cannot read the character list {listed}: {reason_of(exc)}") from exc
    elif model.has_rt_info(["framework", "character"]):  # where OpenVINO keeps ONNX metadata
        text = str(model.get_rt_info(["framework", "character"]).astype(str))
    else:
        raise BundleError(
            f"{where} has no character list in its metadata: put one into the bundle as "
            "characters.txt, one character per line in the order of its classes"
        )
    # not splitlines(): the list itself may hold U+2028 and the like
    characters = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    classes = dims(model.outputs[0])[-1] if len(model.outputs) == 1 else None
    # publishers append the space unless the list has it
    spare = [" "] if classes is None or len(characters) + 2 <= classes else []
    return ("", *characters, *spare)


def kept_classes(characters: tuple[str, ...], alphabet: str) -> list[int] | None:
    """Classes that stay when a recogniser is cut to an alphabet; None = all.

    Args:
        characters: By class.
        alphabet: ``all``, ``latin`` (letters with any accent, digits, punctuation and the signs of
            money), or the characters themselves.

    Raises:
        BundleError: The recogniser has none of them.
    """
    if alphabet == ALL:
        return None
    wanted = is_latin if alphabet == LATIN else frozenset(alphabet).__contains__
    kept = [i for i, c in enumerate(characters) if i and c != " " and wanted(c)]
    if not kept:
        raise BundleError(f"this recogniser knows no character of the alphabet {alphabet!r}")
    spaces = [i for i, c in enumerate(characters) if c == " "]
    return [0, *sorted({*kept, *spaces})]


def is_latin(character: str) -> bool:
    """Whether a character belongs to text in Latin letters."""
    if character.isascii():
        return True
    if len(character) != 1:
        return False
    name = unicodedata.name(character, "")
    return (
        name.startswith("LATIN ")
        or unicodedata.category(character) == "Sc"
        or character in _LATIN_SIGNS
    )


_LATIN_SIGNS = frozenset("°±·×÷§©®™«»‹›‘’‚“”„†‡•…–—‰¡¿¶²³¹½¼¾ªº№€")
