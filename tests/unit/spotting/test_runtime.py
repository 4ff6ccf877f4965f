"""Compiled models: what was asked for is what runs, and what is kept on disk is not trusted."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textspot_ray.errors import TextspotError
from textspot_ray.spotting import runtime as runtime_module
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.runtime import Runtime, Share

FEATURES = np.linspace(0, 1, 64 * 28 * 28, dtype=np.float32).reshape(1, 64, 28, 28)


def _compiled(folder: Path, cache: Path, threads: int = 1, streams: int = 1) -> Any:
    runtime = Runtime(load_bundle(str(folder)), "f32", Share(threads, streams), cache)
    return runtime.compile(runtime.read("encoder"))


def _answer(compiled: Any) -> float:
    return float(np.abs(compiled([FEATURES])[0]).sum())


def _from_cache(compiled: Any) -> bool:
    return bool(compiled.get_property("LOADED_FROM_CACHE"))


def test_threads_streams_and_pinning_are_as_asked_also_from_the_cache(
    stub: Callable[..., Path], tmp_path: Path
) -> None:
    for threads, streams, kept in [(1, 1, False), (2, 1, True), (2, 2, True)]:
        compiled = _compiled(stub(), tmp_path, threads, streams)
        assert _from_cache(compiled) is kept
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
        assert compiled.get_property("NUM_STREAMS") == streams
        assert compiled.get_property("ENABLE_CPU_PINNING") is False
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.mark.parametrize("threads", [(0, 1), (1, 0), (1, 2), (-1, 1)])
def test_an_unstated_or_impossible_share_is_refused(threads: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="threads"):
        Share(*threads)


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "unlisted", "no list", "bad list"])
def test_a_kept_model_that_is_not_as_written_is_compiled_anew(
    stub: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    wanted = _answer(_compiled(stub(), tmp_path))
    (blob,) = tmp_path.glob("*/*.blob")
    sums = blob.parent / "sha256sums"
    data = blob.read_bytes()
    half = len(data) // 2
    if damage == "changed":
        blob.write_bytes(
            data[:half] + bytes(x ^ 0x3F for x in data[half : half + 400]) + data[half + 400 :]
        )
    elif damage == "cut":
        blob.write_bytes(data[:half])
    elif damage == "empty":
        blob.write_bytes(b"")
    elif damage == "unlisted":
        sums.write_text("")
    elif damage == "no list":
        sums.unlink()
    else:
        sums.write_bytes(b"\xff\xfe nothing")
    again = _compiled(stub(), tmp_path)
    assert not _from_cache(again)
    assert _answer(again) == wanted
    assert _from_cache(_compiled(stub(), tmp_path))


def test_an_undamaged_model_is_kept_and_gives_the_same_answer(
    stub: Callable[..., Path], tmp_path: Path
) -> None:
    fresh = _answer(_compiled(stub(), tmp_path))
    kept = _compiled(stub(), tmp_path)
    assert _from_cache(kept) and _answer(kept) == fresh


def _start(folder: str, cache: str, answers: Any) -> None:
    answers.put(_answer(_compiled(Path(folder), Path(cache))))


def test_processes_that_start_together_share_one_cache(
    stub: Callable[..., Path], tmp_path: Path
) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()
    jobs = [
        spawn.Process(target=_start, args=(str(stub()), str(tmp_path), answers)) for _ in range(2)
    ]
    for job in jobs:
        job.start()
    found = {answers.get(timeout=90) for _ in jobs}
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    assert len(found) == 1 and len(list(tmp_path.glob("*/*.blob"))) == 1


_INTERRUPTED = """
import gc, os, signal, sys, time
from textspot_ray import TextSpotter
first = TextSpotter.load(sys.argv[1], threads=1)
second = TextSpotter.load(sys.argv[1], threads=1)
del first
gc.collect()
del second
gc.collect()
others = [bytearray(11568) for _ in range(2000)]
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_models_have_come_and_gone_is_an_interruption(
    stub: Callable[..., Path],
) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, str(stub())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_a_cache_that_cannot_be_written_is_done_without(
    stub: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert _answer(_compiled(stub(), tmp_path / "file")) > 0


def test_another_precision_than_asked_for_is_refused(
    stub: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # left to itself, the plug-in silently takes what its CPU is fastest at
    monkeypatch.setitem(runtime_module._HINTS, "f32", "undefined")
    with pytest.raises(TextspotError) as caught:
        _compiled(stub(), tmp_path)
    assert "undefined asked for" in str(caught.value) and "\n" not in str(caught.value)
