"""Which pages are kept out of training: some to measure on, some to choose by.

A rule on names alone, so that it holds on every machine and for every copy of a data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROLES_FILE = "roles.tsv"  # name, role


@dataclass(frozen=True, slots=True)
class Split:
    """How many of a data set's files are kept out of training.

    Attributes:
        measure: Files for final figures, on which nothing is chosen.
        validate: Files by which thresholds and checkpoints are chosen.
    """

    measure: int = 0
    validate: int = 0


# By the folder's name. What is not named here is trained on whole, but for ICDAR2015 (see
# `datasets.VALIDATION_IDS`) and the dev sets.
SPLITS = {
    "pdf_pages_train": Split(measure=15, validate=6),
    "forms_train": Split(measure=30, validate=10),
    "receipts_train": Split(validate=12),
    "receipts_words": Split(validate=12),
    "packages_words": Split(validate=30),
    "born_digital_train": Split(validate=30),
    "plates_us_words": Split(validate=150),
    "iiit5k_train_words": Split(validate=150),
}


def roles(names: Iterable[str], split: Split) -> dict[str, str]:
    """Give each file of a data set its role.

    The names are ordered by the SHA-256 of their UTF-8; the first ``split.measure`` are for
    measuring, the next ``split.validate`` for validation, the rest for training.

    Args:
        names: File names without folder and suffix, in any order.
        split: How many to keep aside.

    Returns:
        ``"measure"``, ``"validate"`` or ``"train"`` by name.
    """
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    edge = split.measure + split.validate
    return {
        name: "measure" if i < split.measure else "validate" if i < edge else "train"
        for i, name in enumerate(ordered)
    }


def names_for(role: str, names: Iterable[str], folder: Path) -> set[str]:
    """Those of a data set's files that have a role.

    Args:
        role: ``"measure"``, ``"validate"`` or ``"train"``.
        names: All the set's file names, without folder and suffix.
        folder: The set; its name says how it is split, see `SPLITS`. A part of a set, in which the
            rule would give other files, brings its roles along in `ROLES_FILE`.
    """
    told = folder / ROLES_FILE
    if told.is_file():
        lines = told.read_text(encoding="utf-8").splitlines()
        return {name for name, _, own in (line.partition("\t") for line in lines) if own == role}
    split = SPLITS.get(folder.name.partition(".")[0], Split())
    return {name for name, own in roles(names, split).items() if own == role}
