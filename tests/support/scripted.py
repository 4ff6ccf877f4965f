"""Models that do what an image's text tells them: find words, fail, stall or kill their process.

An "image" is a file of lines ``key=value``: ``words=red,blue`` (the words to find), ``pages=3``,
``sleep=0.1``, ``do=...`` (while detecting) and ``read_do=...`` (while recognising), where ``do`` is
``bad`` (an error value), ``raise``, ``crash`` (abort), ``exit``, ``kill`` (SIGKILL), ``stall``,
``hold`` (a stall that blocks the whole process), ``leak`` (5 MB) or any of them with
``_once:FILE``, which does it only until FILE exists.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from textspot_ray.config import RunConfig, config_from_dict
from textspot_ray.engine.components import Components
from textspot_ray.engine.slot.slot import Recipe
from textspot_ray.errors import BundleError
from textspot_ray.records import (
    DetectedPage,
    Detection,
    Encoded,
    ErrorKind,
    ImageError,
    ImageResult,
    Item,
    PageInfo,
    Reading,
    Readings,
    Stage,
    Word,
)

FINGERPRINT = {"bundle": "scripted 1", "precision": "f32"}
_LEAKED: list[bytearray] = []


@dataclass(frozen=True)
class ScriptedModels:
    """The recipe; ``refuse`` makes loading fail by a user's mistake, ``die`` by a crash."""

    refuse: str = ""
    die: bool = False
    load_s: float = 0.0

    def detector(self) -> ScriptedDetector:
        time.sleep(self.load_s)
        if self.refuse:
            raise BundleError(self.refuse)
        if self.die:
            os.abort()
        return ScriptedDetector()

    def recognizer(self) -> ScriptedRecognizer:
        return ScriptedRecognizer()

    def sized(self, threads: object) -> ScriptedModels:
        return self


class ScriptedDetector:
    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, np.ndarray]:
        if data.startswith(b"\x89PNG"):
            return DetectedPage(PageInfo(1, 1, "PNG", 1), ()), encode_words([])
        script = parse(data)
        time.sleep(float(script.get("sleep", 0)))
        if (action := script.get("do")) and not (script.get("page") not in (None, str(page))):
            error = act(action)
            if error is not None:
                return DetectedPage(None, (), error), encode_words([])
        words = [w for w in script.get("words", "").split(",") if w]
        if page:
            words = [f"{w}p{page}" for w in words]
        info = PageInfo(640, 480, "SCRIPT", 1, pages=int(script.get("pages", 1)))
        boxes = tuple(
            Detection(0.9, (i, 0.0, i + 1.0, 1.0), (0.0,) * 8, 0.0) for i in range(len(words))
        )
        features = encode_words(words)
        if "read_do" in script and words:
            command = script["read_do"].encode()
            features[0, 1, 0, :4] = len(command) // 28 + 1
            padded = np.frombuffer(command.ljust(28 * 27, b" "), np.uint8).reshape(27, 28)
            features[0, 1, 1:] = padded
        return DetectedPage(info, boxes, feature_bytes=features.nbytes), features


class ScriptedRecognizer:
    def blank(self) -> np.ndarray:
        return encode_words([""])

    def read(self, features: np.ndarray) -> Readings:
        if len(features) and features[0, 1, 0, 0]:
            action = bytes(features[0, 1, 1:].astype(np.uint8).ravel()).decode().strip()
            act(action)
        readings = []
        for row in features:
            text = bytes(row[0, 0].astype(np.uint8)).rstrip(b"\0").decode()
            readings.append(Reading(text, 0.5, (0.9,) * len(text)))
        return Readings(tuple(readings))


def parse(data: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)


def encode_words(words: list[str]) -> np.ndarray:
    features = np.zeros((len(words), 64, 28, 28), np.float32)
    for row, word in zip(features, words, strict=True):
        row[0, 0, : len(word)] = np.frombuffer(word.encode(), np.uint8)
    return features


def act(action: str) -> ImageError | None:
    action, _, once = action.partition("_once:")
    if once:
        flag = Path(once)
        if flag.exists():
            return None
        flag.touch()
    match action:
        case "bad":
            return ImageError(Stage.DECODE, ErrorKind.CORRUPT, "scripted to be bad")
        case "raise":
            raise ValueError("scripted to raise")
        case "crash":
            os.abort()
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall":
            time.sleep(3600)
        case "hold":  # in native code, with Python's lock held: no thread of the process runs
            ctypes.PyDLL(None).sleep(3600)
        case "leak":
            _LEAKED.append(bytearray(os.urandom(2**20) * 5))
        case _:
            raise AssertionError(action)
    return None


class FileReader:
    """Reads whole files; ``sleep`` in ``slow`` files is the storage's."""

    def read(self, items: Iterable[Item]) -> Iterator[Encoded]:
        for item in items:
            try:
                data = Path(item.source).read_bytes()
            except FileNotFoundError:
                error = ImageError(Stage.READ, ErrorKind.MISSING, f"{item.source} is gone")
                yield Encoded(item, None, error)
                continue
            script = parse(data)
            if "read_sleep" in script:
                time.sleep(float(script["read_sleep"]))
            yield Encoded(item, data, sha256=sha256(data).hexdigest())

    def close(self) -> None:
        pass


def list_folder(folder: Path) -> Iterator[Item]:
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        yield Item(f"file://{path}", str(path), size=size, content_tag=f"{size}")


def assemble(
    encoded: Encoded, page: int, detected: DetectedPage, readings: Readings | None
) -> ImageResult:
    read = readings.readings if readings else ()
    words = tuple(
        Word(r.text, r.confidence, r.char_confidences, d.confidence, d.box, d.polygon, 0.0)
        for d, r in zip(detected.detections, read, strict=True)
    )
    return ImageResult(encoded.item, page, detected.info, words, error=detected.error)


def scripted_parts(folder: Path, models: ScriptedModels | None = None) -> Components:
    recipe = Recipe(models or ScriptedModels(), FileReader, assemble)
    return Components(recipe, FINGERPRINT, partial(list_folder, folder))


def scripted_config(out: Path, **engine: object) -> RunConfig:
    return config_from_dict(
        {
            "engine": {"kind": "local", "min_deadline_s": 2.0, **engine},
            "output": {"uri": str(out), "min_shard_items": 4, "max_shard_items": 8},
        }
    )


def write_images(folder: Path, scripts: Iterable[str]) -> Path:
    """One file a script, named so that they are listed in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, script in enumerate(scripts):
        (folder / f"{number:04d}.img").write_text(script.replace(";", "\n"))
    return folder


def plain_scripts(count: int) -> list[str]:
    """Images with zero to two words."""
    return [f"words={','.join(f'w{n}x{i}' for i in range(n % 3))}" for n in range(count)]
