"""Of files with the same bytes the first is taken, wherever and under whatever name they lie."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.copies import DUPLICATE
from textspot_ray.sources.listing import list_items


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    (root / "b").mkdir(parents=True)
    for name, data in {
        "a1.jpg": b"one" * 400, "a2.jpg": b"two" * 400, "b/again.jpg": b"one" * 400,
        "notes.txt": b"one" * 400, "empty1.jpg": b"", "empty2.jpg": b"",
    }.items():  # fmt: skip
        (root / name).write_bytes(data)
    with zipfile.ZipFile(root / "c.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x/two.jpg", b"two" * 400)
        packed.writestr("x/three.jpg", b"three" * 400)
    with tarfile.open(root / "d.tar.gz", "w:gz") as packed:
        packed.add(root / "a1.jpg", "once more.jpg")
    return root


def listed(root: Path, **options: object) -> tuple[list[str], list[str]]:
    """Names of what is taken, and of what is a copy."""
    config = SourceConfig(uris=(str(root),), skip_duplicates=True, **options)
    entries = list(list_items(config, ImageConfig()))
    start = len(root.as_uri()) + 1
    taken = [entry.image_id[start:] for entry in entries if isinstance(entry, Item)]
    copies = [e.uri[start:] for e in entries if isinstance(e, Skipped) and e.reason == DUPLICATE]
    return taken, copies


@pytest.mark.parametrize("at_a_time", [1, 2, 64])
def test_the_first_of_each_content_is_taken(
    archive: Path, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textspot_ray.sources.copies._AT_A_TIME", at_a_time)
    taken, copies = listed(archive)
    plain = [
        entry.image_id[len(archive.as_uri()) + 1 :]
        for entry in list_items(SourceConfig(uris=(str(archive),)), ImageConfig())
        if isinstance(entry, Item)
    ]
    assert len(copies) == 3 and sorted(taken + copies) == sorted(plain)
    assert taken == [name for name in plain if name not in copies], "the order is kept"
    contents = {"one": {"a1.jpg", "b/again.jpg", "d.tar.gz#once%20more.jpg"}}
    contents["two"] = {"a2.jpg", "c.zip#x/two.jpg"}
    for names in contents.values():
        (first,) = names & set(taken)
        assert first == next(name for name in plain if name in names)
    assert {"empty1.jpg", "empty2.jpg"} <= set(taken), "each failed file has its own row"


def test_what_cannot_be_read_stays_in(archive: Path) -> None:
    (archive / "lost.jpg").symlink_to(archive / "nowhere.jpg")
    before = set(listed(archive)[0])
    (archive / "cut.zip").write_bytes((archive / "c.zip").read_bytes()[:-30])
    taken, _ = listed(archive)
    assert before <= set(taken) and any(name.startswith("cut.zip") for name in taken)


def test_a_table_of_them_counts_each_copy(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from textspot_ray.cli import main

    assert main(["plan", str(archive), "--skip-duplicates", "--probe", "0"]) == 0
    said = capsys.readouterr().out
    assert "skipped  3 duplicate" in said and "5 listed" in said
