"""Which files training never sees: a rule on names that no order and no folder can change."""

from __future__ import annotations

from pathlib import Path

from jobs.training.data.kept_aside import SPLITS, Split, names_for, roles

NAMES = [f"page_{i:03}" for i in range(79)]


def test_roles_are_counted_exactly_and_do_not_hang_on_order() -> None:
    found = roles(NAMES, Split(measure=15, validate=6))
    assert [list(found.values()).count(r) for r in ("measure", "validate", "train")] == [15, 6, 58]
    assert roles(reversed(NAMES), Split(measure=15, validate=6)) == found


def test_the_rule_itself_is_pinned() -> None:
    """Another rule would train on pages that figures were measured on."""
    # SHA-256 of c, b and a begin with 2e7d, 3e23 and ca97
    assert roles(["a", "b", "c"], Split(measure=1, validate=1)) == {
        "c": "measure",
        "b": "validate",
        "a": "train",
    }


def test_measuring_pages_are_those_of_the_issue() -> None:
    assert SPLITS["pdf_pages_train"].measure == 15
    assert SPLITS["forms_train"].measure == 30
    train, kept = (names_for(r, NAMES, Path("d/pdf_pages_train")) for r in ("train", "measure"))
    assert len(kept) == 15 and not train & kept
    # a set that is not named is trained on whole
    assert names_for("train", NAMES, Path("elsewhere")) == set(NAMES)
    assert names_for("measure", NAMES, Path("d/pdf_pages_train.tar")) == kept
    # the receipts keep the same pages aside as lines and as words
    assert SPLITS["receipts_train"] == SPLITS["receipts_words"]


def test_a_part_of_a_set_brings_its_roles_along(tmp_path: Path) -> None:
    part = tmp_path / "pdf_pages_train"
    part.mkdir()
    (part / "roles.tsv").write_text("page_001\ttrain\npage_002\tvalidate\n")
    names = ["page_001", "page_002"]
    assert [names_for(r, names, part) for r in ("train", "validate", "measure")] == [
        {"page_001"},
        {"page_002"},
        set(),
    ]
