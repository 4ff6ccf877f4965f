"""The embedded bundle's images a second against RapidOCR's on the same photos and cores.

RapidOCR runs in a process of its own, so that an interpreter with other packages can be named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from jobs.bench.pipeline import Pipeline
from jobs.bench.suite import Line, Options
from jobs.bench.timing import Work, interleave, ratio
from textspot_ray.config import EngineConfig
from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.spotting.catalogue import load_bundle

_RIVAL = """
import logging, os, sys
logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from rapidocr import RapidOCR
cores, photos = int(sys.argv[1]), sys.argv[2:]
engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": cores})
print("ready", file=answers)
for line in sys.stdin:
    words = 0
    for i in range(int(line)):
        found = engine(photos[i % len(photos)])
        words += len(found.txts or ())
    print(words, file=answers)
"""


def interpreter(python: Path | None) -> str:
    """The program that runs RapidOCR.

    Raises:
        MissingExtraError: None is named, and this interpreter has no rapidocr.
    """
    if python is None and find_spec("rapidocr") is None:
        raise MissingExtraError("comparing with RapidOCR", "bench")
    return str(python or sys.executable)


class PeerProcess:
    """A process that spots photos when asked.

    Args:
        python: The interpreter.
        program: Text of a program that takes cores and photos as arguments, says "ready", and for
            each line with a number of images answers with the words it found.
        cores: Threads it may use.
        photos: Images to repeat.
        name: What it is called in messages.

    Raises:
        UsageError: The interpreter cannot run it.
    """

    def __init__(
        self, python: str, program: str, cores: int, photos: Sequence[Path], name: str
    ) -> None:
        self.words = 0
        self._name = name
        try:
            self._process = subprocess.Popen(
                [python, "-c", program, str(cores), *(str(p.resolve()) for p in photos)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as exc:
            raise UsageError(f"cannot run {python}: {exc.strerror}") from exc
        if self._answer() != "ready":
            _, said = self._process.communicate()
            last = (said.strip().splitlines() or ["it ended without a word"])[-1]
            raise UsageError(f"{python} cannot run {name}: {last}")

    def __call__(self, images: int) -> int:
        """Spot that many photos."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{images}\n")
        self._process.stdin.flush()
        answer = self._answer()
        if not answer.isdigit():
            raise UsageError(f"the process of {self._name} ended")
        self.words += int(answer)
        return images

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


BAR, GOAL = 3.0, 6.0  # times RapidOCR's images a second, in int8


def against_rapidocr(options: Options, python: Path | None, precision: str | None) -> list[Line]:
    """The whole pipeline on the embedded bundle (or ``model``) against RapidOCR.

    Args:
        options: What to measure with.
        python: Interpreter that has rapidocr; None = this one.
        precision: None = the bundle's default.
    """
    bundle = load_bundle(options.model or "embedded")
    precision = bundle.resolve_precision(precision)
    folder = options.work / "tables" / f"{os.getpid()}-embedded"
    shutil.rmtree(folder, ignore_errors=True)
    rival = PeerProcess(interpreter(python), _RIVAL, options.cores, options.photos, "RapidOCR")
    try:
        pipeline = Pipeline(
            str(bundle.folder),
            precision,
            options.photos,
            folder,
            images=options.images,
            rounds=options.rounds + 1,
            engine=EngineConfig(
                kind="local",
                threads=options.cores,
                threads_per_inference=max(1, options.cores // options.streams),
                in_flight=options.cores + 2,
            ),
        )
        try:
            variants: dict[str, Work] = {
                "rapidocr": lambda: rival(options.images),
                "pipeline": pipeline,
            }
            times = interleave(variants, options.rounds, on_round=options.say)
        finally:
            pipeline.close()
    finally:
        rival.close()
        shutil.rmtree(folder, ignore_errors=True)
    pair = times["rapidocr"], times["pipeline"]
    rounds = options.rounds + 1
    options.say(
        f"words an image: RapidOCR {rival.words / (rounds * options.images):.1f} (lines), "
        f"the pipeline {pipeline.spent.words / pipeline.spent.images:.1f}"
    )
    what = f"{bundle.spec.name} {precision} pipeline / RapidOCR"
    bar, goal = (BAR, GOAL) if precision == "int8" else (None, None)
    return [Line(what, ratio(*pair), bar, goal, *pair)]
