"""A bundle of lines against programs that run the same weights, and against its own arithmetic.

Each rival is a process of its own with as many threads as the pipeline has cores: RapidOCR as it
is installed (ONNX Runtime), RapidOCR with its OpenVINO engine, and faster-paddle (Rust).
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.embedded import PeerProcess
from jobs.bench.pipeline import Pipeline
from jobs.bench.suite import Line, Options
from jobs.bench.timing import Work, interleave, ratio
from textspot_ray.config import EngineConfig
from textspot_ray.errors import MissingExtraError
from textspot_ray.spotting.lines.family import FAMILY
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector

_RAPIDOCR = """
import logging, os, sys
logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from rapidocr import EngineType, RapidOCR
cores, photos = int(sys.argv[1]), sys.argv[2:]
{engine}
print("ready", file=answers)
for line in sys.stdin:
    words = 0
    for i in range(int(line)):
        found = engine(photos[i % len(photos)])
        words += sum(len(text.split()) for text in found.txts or ())
    print(words, file=answers)
"""
_ONNX = 'engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": cores})'
_OPENVINO = """engine = RapidOCR(params={
    "EngineConfig.openvino.inference_num_threads": cores,
    **{f"{part}.engine_type": EngineType.OPENVINO for part in ("Det", "Cls", "Rec")},
})"""
_FASTER_PADDLE = """
import os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from faster_paddle import OcrEngine
cores, photos = int(sys.argv[1]), [open(p, "rb").read() for p in sys.argv[2:]]
engine = OcrEngine(model_size="small", threads=cores)
print("ready", file=answers)
for line in sys.stdin:
    batch = [photos[i % len(photos)] for i in range(int(line))]
    found = engine.ocr_batch(batch, batch_size=4)
    print(sum(len(page["text"].split()) for page in found), file=answers)
"""


@dataclass(frozen=True, slots=True)
class Rival:
    """A program that runs the same weights, its bar and its goal (times its images a second)."""

    name: str
    module: str
    program: str
    bar: float
    goal: float


RIVALS = (
    Rival("rapidocr", "rapidocr", _RAPIDOCR.format(engine=_ONNX), 4.0, 5.0),
    Rival("rapidocr openvino", "rapidocr", _RAPIDOCR.format(engine=_OPENVINO), 1.8, 2.5),
    Rival("faster-paddle", "faster_paddle", _FASTER_PADDLE, 2.0, 2.5),
)
_BARE_BAR, _BARE_GOAL = 0.90, 0.95
_RAY_BAR, _RAY_GOAL = 0.93, 0.97


def against_rivals(options: Options, alphabet: str | None, chosen: Sequence[str]) -> list[Line]:
    """The pipeline against other programs, its bare arithmetic, and Ray.

    Args:
        options: What to measure with; ``model`` is the bundle, ppocrv6-small by default.
        alphabet: The recogniser is cut to it; None = the bundle's.
        chosen: Names of `RIVALS`, "bare", "ray"; empty = all.

    Raises:
        MissingExtraError: A rival is not installed.
    """
    model = options.model or "ppocrv6-small"
    work = options.work / "tables" / f"{os.getpid()}-lines"
    rivals = [rival for rival in RIVALS if not chosen or rival.name in chosen]
    for rival in rivals:
        if find_spec(rival.module) is None:
            raise MissingExtraError(f"comparing with {rival.name}", "bench")
    variants: dict[str, Work] = {}
    closing: list[Any] = []
    try:
        for rival in rivals:
            peer = PeerProcess(
                sys.executable, rival.program, options.cores, options.photos, rival.name
            )
            closing.append(peer)
            variants[rival.name] = lambda peer=peer: peer(options.images)
        if not chosen or "bare" in chosen:
            settings = SpotterSettings(model, alphabet=alphabet)
            variants["bare"] = BareLines(settings, options)
        for kind in ("local", "ray") if not chosen or "ray" in chosen else ("local",):
            pipeline = Pipeline(
                model,
                None,
                options.photos,
                work / kind,
                images=options.images,
                rounds=options.rounds + 1,
                engine=EngineConfig(
                    kind=kind,
                    threads=options.cores,
                    threads_per_inference=max(1, options.cores // options.streams),
                    in_flight=options.cores + 2,
                ),
                alphabet=alphabet,
            )
            closing.append(pipeline)
            variants[kind] = pipeline
        times = interleave(variants, options.rounds, on_round=options.say)
    finally:
        for each in reversed(closing):
            each.close()
        shutil.rmtree(work, ignore_errors=True)
    ours = times["local"]
    lines = [
        Line(
            f"{model} pipeline / {rival.name}",
            ratio(times[rival.name], ours),
            rival.bar,
            rival.goal,
            times[rival.name],
            ours,
        )
        for rival in rivals
    ]
    if "bare" in times:
        pair = times["bare"], ours
        lines.append(
            Line(f"{model} pipeline / bare arithmetic", ratio(*pair), _BARE_BAR, _BARE_GOAL, *pair)
        )
    if "ray" in times:
        pair = ours, times["ray"]
        lines.append(Line(f"{model} Ray / in-process", ratio(*pair), _RAY_BAR, _RAY_GOAL, *pair))
    return lines


class BareLines:
    """The inference of the same images alone: prepared inputs and strips, every core busy.

    Args:
        settings: Bundle and alphabet; threads are ``options.cores``.
        options: What to measure with.
    """

    def __init__(self, settings: SpotterSettings, options: Options) -> None:
        from dataclasses import replace

        settings = replace(settings, threads=options.cores, streams=options.streams)
        pages = PageDetector(settings)
        self._detectors = [pages.requests.get() for _ in range(options.streams)]
        recorder = _Recorder(self._detectors[0])
        pages.requests.put(recorder)
        self._jobs: list[tuple[Any, Any]] = []
        for i in range(options.images):
            recorder.inputs.clear()
            _, strips = pages.detect(options.photos[i % len(options.photos)].read_bytes())
            self._jobs.append((list(recorder.inputs), strips))
        self._recognizer = FAMILY.load_recognizer(settings)

    def __call__(self) -> int:
        """Infer all of it once: images side by side, one a stream."""
        left = list(range(len(self._jobs)))
        lock = threading.Lock()

        def work(request: Any) -> None:
            while True:
                with lock:
                    if not left:
                        return
                    inputs, strips = self._jobs[left.pop()]
                for given in inputs:
                    request.infer({0: given}, share_inputs=True, share_outputs=True)
                self._recognizer.read(strips)

        threads = [threading.Thread(target=work, args=(r,)) for r in self._detectors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self._jobs)


class _Recorder:
    """An inference request that keeps its inputs."""

    def __init__(self, request: Any) -> None:
        self.inputs: list[np.ndarray[Any, Any]] = []
        self._request = request

    def infer(self, inputs: dict[int, Any], **options: Any) -> None:
        self.inputs.append(inputs[0].copy())
        self._request.infer(inputs, **options)

    def get_output_tensor(self, index: int) -> Any:
        return self._request.get_output_tensor(index)


def mixed(folders: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """Images of several folders in turn, so that every round has its share of each."""
    each = [sorted(p for p in f.glob("*") if p.suffix.lower() in suffixes) for f in folders]
    longest = max((len(found) for found in each), default=0)
    return [found[i % len(found)] for i in range(longest) for found in each if found]
