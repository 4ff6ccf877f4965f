"""The family lines under kills and poison: what is lost is one image's, and it is said."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import psutil
import pytest

from tests.support.lines_bundle import dark, draw_line, write_lines_bundle
from tests.support.poisoned import poisoned
from tests.support.tables_equal import all_rows
from textspot_ray.config import RunConfig, config_from_dict
from textspot_ray.engine.components import components_from
from textspot_ray.engine.run import run
from textspot_ray.records import ErrorKind

pytestmark = pytest.mark.timeout(180)


def _pictures(folder: Path, texts: list[str]) -> Path:
    """One picture a text, of changing sizes, and the text twice on it."""
    folder.mkdir()
    for n, text in enumerate(texts):
        picture = dark(480 + 32 * (n % 5), 320, seed=n)
        draw_line(picture, text, 30 + n, 40, 30 + n % 7)
        draw_line(picture, text, 20, 200, 34)
        cv2.imwrite(str(folder / f"{n:03d}.png"), picture)
    return folder


def _config(tmp_path: Path, out: str, texts: list[str], **engine: object) -> RunConfig:
    bundle, folder = tmp_path / "bundle", tmp_path / "in"
    if not folder.exists():
        write_lines_bundle(bundle)
        _pictures(folder, texts)
    return config_from_dict(
        {
            "source": {"uris": [str(folder)]},
            "model": {"name": str(bundle)},
            "engine": {"kind": "local", "min_deadline_s": 30.0, **engine},
            "output": {"uri": str(tmp_path / out), "min_shard_items": 4, "max_shard_items": 8},
        }
    )


def _words(out: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in all_rows(out)["words"]:
        found.setdefault(row["image_id"][-7:-4], []).append(row["text"])
    return found


def _errors(out: Path) -> dict[str, str]:
    return {row["image_id"][-7:-4]: row["kind"] for row in all_rows(out)["errors"]}


def test_a_deadly_line_costs_its_image_alone(tmp_path: Path) -> None:
    texts = [f"word{n}" for n in range(10)]
    texts[3], texts[5], texts[8] = "crash", "raise", "once"
    config = _config(tmp_path, "out", texts)
    flag = tmp_path / "flag"
    report = run(config, parts=poisoned(components_from(config), flag))
    assert flag.exists()  # it did kill its process, once
    assert report.counts.images == 10 and report.counts.failed == 2
    assert _errors(tmp_path / "out") == {
        "003": str(ErrorKind.CRASHED),
        "005": str(ErrorKind.INTERNAL),
    }
    kept = {f"{n:03d}": [t, t] for n, t in enumerate(texts) if n not in (3, 5)}
    assert _words(tmp_path / "out") == kept


def test_a_killed_child_costs_nothing(tmp_path: Path) -> None:
    texts = [f"word{n}" for n in range(96)]  # progress is told a few times a second
    run(_config(tmp_path, "calm", texts))
    victims: set[int] = set()

    def kill_once(progress) -> None:
        if progress.images < 1 or victims:
            return
        for process in psutil.Process().children(recursive=True):
            try:
                is_child = "local_child" in " ".join(process.cmdline())
            except psutil.Error:
                continue
            if is_child:
                os.kill(process.pid, signal.SIGKILL)
                victims.add(process.pid)

    run(_config(tmp_path, "out", texts), on_progress=kill_once)
    assert victims
    calm, out = all_rows(tmp_path / "calm"), all_rows(tmp_path / "out")
    assert calm == out
    assert len(out["words"]) == 192 and not out["errors"]


@pytest.mark.ray
@pytest.mark.slow  # actors that load OpenVINO anew, time and again
@pytest.mark.timeout(900)
def test_killed_actors_cost_nothing(tmp_path: Path, ray_cluster: object) -> None:
    from tests.faults.test_ray_kills import actors

    texts = [f"word{n}" for n in range(40)]
    run(_config(tmp_path, "calm", texts))
    victims = ["DetectorActor", "RecognizerActor"]
    next_at = [5]

    def kill_in_turn(progress) -> None:
        if victims and progress.images >= next_at[0]:
            for process in actors(victims[0]):
                os.kill(process.pid, signal.SIGKILL)
                next_at[0] = progress.images + 8
                victims.pop(0)
                break

    config = _config(tmp_path, "out", texts, kind="ray", in_flight=2)
    report = run(config, on_progress=kill_in_turn)
    assert not victims
    assert report.counts.images == 40 and report.counts.failed == 0
    calm, out = all_rows(tmp_path / "calm"), all_rows(tmp_path / "out")
    assert calm == out and len(out["words"]) == 80


@pytest.mark.ray
@pytest.mark.slow  # actors that load OpenVINO anew, time and again
@pytest.mark.timeout(900)
def test_a_deadly_line_on_ray(tmp_path: Path, ray_cluster: object) -> None:
    texts = [f"word{n}" for n in range(8)]
    texts[2], texts[5] = "crash", "once"
    config = _config(tmp_path, "out", texts, kind="ray")
    report = run(config, parts=poisoned(components_from(config), tmp_path / "flag"))
    assert report.counts.images == 8 and report.counts.failed == 1
    assert _errors(tmp_path / "out") == {"002": str(ErrorKind.CRASHED)}
    assert (tmp_path / "flag").exists()
