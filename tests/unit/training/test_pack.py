"""A packed folder: what goes in, what stays, and how it is started."""

from __future__ import annotations

import datetime as dt
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training import pack, pack_run
from jobs.training.data.kept_aside import names_for
from jobs.training.loop.session import LAST_ROUND_MINUTES, Session, end_time
from textspot_ray.errors import UsageError


def write_set(folder: Path, count: int) -> list[str]:
    (folder / "images").mkdir(parents=True)
    (folder / "gt").mkdir()
    rng = np.random.default_rng(0)
    names = [f"page_{i}" for i in range(count)]
    for name in names:
        image = np.repeat(rng.integers(0, 255, (40, 60, 1), np.uint8), 3, 2)
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), image)
        (folder / "gt" / f"gt_{name}.txt").write_text("1,1,9,1,9,9,1,9,word\n")
    return names


def test_pages_for_measuring_never_leave_and_some_for_validation_go_along(tmp_path: Path) -> None:
    names = write_set(tmp_path / "pdf_pages_train", 79)
    count = pack.pack_set(tmp_path / "pdf_pages_train", 10**7, 60, tmp_path / "s.tar")
    with tarfile.open(tmp_path / "s.tar") as tar:
        packed = {Path(n).stem for n in tar.getnames() if "/images/" in n}
        assert {Path(n).stem.removeprefix("gt_") for n in tar.getnames() if "/gt/" in n} == packed
    assert count == len(packed) == 64
    assert not packed & names_for("measure", names, tmp_path / "pdf_pages_train")
    assert packed & names_for("validate", names, tmp_path / "pdf_pages_train")


def test_a_shard_keeps_to_its_room(tmp_path: Path) -> None:
    write_set(tmp_path / "some_set", 40)
    some = pack.pack_set(tmp_path / "some_set", 60_000, 60, tmp_path / "s.tar")
    assert 0 < some < 40
    assert (tmp_path / "s.tar").stat().st_size < 60_000 + 2 * tarfile.RECORDSIZE


def test_packing_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="is not empty"):
        pack.pack(tmp_path, tmp_path / "full", 60)
    with pytest.raises(UsageError, match="none of the data sets"):
        pack.pack(tmp_path, tmp_path / "new", 60)
    with pytest.raises(UsageError, match="neither detector"):
        pack.unpack(tmp_path, tmp_path, False)


def test_both_trainings_are_told_their_end_their_device_and_half_the_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = pack_run.argparse.Namespace(
        device="cuda", processes=14, out=Path("/o"), cooldown_share=0.3, parts=["reader"]
    )
    found = pack_run.commands(args, "12:30:00", 9.0)
    assert set(found) == {"reader"}
    assert {"--until=12:30:00", "--device=cuda", "--workers=7", "--save-every=1"} <= set(
        found["reader"]
    )
    from jobs.training.detector.train import arguments

    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    args.parts = ["detector"]
    command = pack_run.commands(args, "12:30:00", 9.0)["detector"]
    parsed = arguments().parse_args(command[4:])  # every option is one the trainer knows
    assert parsed.cooldown_minutes == pytest.approx(2.7)
    assert parsed.device == "cuda"


def test_a_session_has_ended_by_a_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at = end_time((dt.datetime.now() + dt.timedelta(minutes=3)).strftime("%H:%M:%S"))
    session = Session(60, until=at)
    assert session.left == pytest.approx(3 - LAST_ROUND_MINUTES, abs=0.05)
    assert Session(1, until=at).left == pytest.approx(1)
    # a time that is gone is tomorrow's
    gone = end_time((dt.datetime.now() - dt.timedelta(minutes=3)).strftime("%H:%M"))
    assert gone - at > 22 * 3600
    for text in ("25:00", "12", "1:2:3:4", "a:b", "12:60"):
        with pytest.raises(ValueError, match=r"."):
            end_time(text)
