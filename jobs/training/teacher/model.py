"""PP-OCRv6 small as a teacher: reads words and lines, and says where in a line each symbol lies.

The models are those of the wheel of ``rapidocr`` (PaddlePaddle's PP-OCRv6, Apache-2.0), run by
OpenVINO in f32. Pre- and post-processing follow RapidOCR: 48 px high, (x - 127.5) / 127.5 on BGR,
greedy CTC.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.spotting.runtime import shared_core

HEIGHT_PX = 48
LEAST_WIDTH_PX = 320  # narrower words are padded to it, as the recogniser was trained
WIDTH_STEP_PX = 64  # few shapes: each new one costs memory
COLUMN_PX = 8  # of the input, a column of the output
# Mean confidence of a reading that is right 19 times of 20, and 49 of 50, at the true quads of
# 1,000 words of training photos.
SURE, VERY_SURE = 0.948, 0.9971

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of a line and its columns ``first`` .. ``last``, in input px over the line's height.

    Attributes:
        text: The character.
        confidence: Its probability.
        start: Where it begins, in heights of the line from its left end.
        stop: Where it ends.
    """

    text: str
    confidence: float
    start: float
    stop: float


def mean_confidence(symbols: Sequence[Symbol]) -> float:
    """Mean of a reading's confidences; 0 of an empty one."""
    return float(np.mean([s.confidence for s in symbols])) if symbols else 0.0


def models_folder() -> Path:
    """Where the ``rapidocr`` wheel keeps its models.

    Raises:
        MissingExtraError: It is not installed.
    """
    found = importlib.util.find_spec("rapidocr")
    if found is None or found.origin is None:
        raise MissingExtraError("the teacher (rapidocr is missing)", "train")
    return Path(found.origin).parent / "models"


class LineReader:
    """The teacher's recogniser.

    Args:
        folder: Holds ``PP-OCRv6_rec_small.onnx``; the ``rapidocr`` wheel's by default.
        threads: For inference.

    Raises:
        UsageError: The model is not there.
    """

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        path = (folder or models_folder()) / "PP-OCRv6_rec_small.onnx"
        if not path.is_file():
            raise UsageError(f"{path}: no such model; install rapidocr 3.10 (pip)")
        model = shared_core().read_model(str(path))
        listed = model.get_rt_info(["framework", "character"]).astype(str)
        # 0 is the blank; a space comes last
        self.symbols = ["", *listed.split("\n"), " "]
        self._compiled: Any = shared_core().compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        )
        self._codes = {symbol: i for i, symbol in enumerate(self.symbols)}

    def probabilities(self, line: Image) -> tuple[Floats, float]:
        """Per-column probabilities of an upright line.

        Args:
            line: [H, W, 3] BGR.

        Returns:
            [columns, symbols], and how many columns the line itself fills.
        """
        height, width = line.shape[:2]
        scaled = max(1, math.ceil(HEIGHT_PX * width / height))
        resized = cv2.resize(line, (scaled, HEIGHT_PX), interpolation=cv2.INTER_LINEAR)
        wide = max(LEAST_WIDTH_PX, -(-scaled // WIDTH_STEP_PX) * WIDTH_STEP_PX)
        canvas = np.zeros((1, 3, HEIGHT_PX, wide), np.float32)
        canvas[0, :, :, :scaled] = resized.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
        return np.array(self._compiled(canvas)[0][0]), scaled / COLUMN_PX

    def read(self, line: Image) -> list[Symbol]:
        """Read an upright line [H, W, 3] BGR by greedy CTC."""
        probabilities, _ = self.probabilities(line)
        best = probabilities.argmax(1)
        symbols: list[Symbol] = []
        for column, code in enumerate(best.tolist()):
            if code and (not column or best[column - 1] != code):
                symbols.append(
                    self._symbol(code, float(probabilities[column, code]), column, column)
                )
            elif code:
                last = symbols[-1]
                sure = max(last.confidence, float(probabilities[column, code]))
                symbols[-1] = Symbol(last.text, sure, last.start, _end(column))
        return symbols

    def align(self, line: Image, text: str) -> list[Symbol]:
        """Find where the symbols of a known text lie, by Viterbi over CTC's states; case is free.

        Args:
            line: [H, W, 3] BGR, upright.
            text: What it says. Symbols that the teacher does not know are left out.

        Returns:
            The text's symbols, each with its columns; empty where the line is too short for them.
        """
        codes = [self._codes[c] for c in text if c in self._codes]
        if not codes:
            return []
        probabilities, _ = self.probabilities(line)
        for code in set(codes):  # transcriptions in capitals are of lines in either case
            other = self._codes.get(self.symbols[code].swapcase(), code)
            both = np.maximum(probabilities[:, code], probabilities[:, other])
            probabilities[:, code] = both
        path = viterbi(np.log(np.maximum(probabilities, 1e-9)), codes)
        symbols = []
        for i, code in enumerate(codes):
            columns = [t for t, state in enumerate(path) if state == 2 * i + 1]
            if not columns:
                return []
            sure = float(probabilities[columns, code].max())
            symbols.append(self._symbol(code, sure, columns[0], columns[-1]))
        return symbols

    def _symbol(self, code: int, confidence: float, first: int, last: int) -> Symbol:
        start = first * COLUMN_PX / HEIGHT_PX
        return Symbol(self.symbols[code], confidence, start, _end(last))


def _end(column: int) -> float:
    return (column + 1) * COLUMN_PX / HEIGHT_PX


def viterbi(log_probabilities: NDArray[np.floating], codes: Sequence[int]) -> list[int]:
    """The likeliest CTC path through a known text (Graves et al. 2006, with max for sum).

    Args:
        log_probabilities: [T, symbols]; 0 is the blank.
        codes: The text's symbols.

    Returns:
        The state of each column: 2 i + 1 is symbol i, even states are the blanks between; empty
        where T is too short.
    """
    states = [0]
    for code in codes:
        states += [code, 0]
    emit = log_probabilities[:, states]
    n = len(states)
    skip = np.array(
        [i >= 2 and states[i] != 0 and states[i] != states[i - 2] for i in range(n)], np.bool_
    )
    score = np.full(n, -np.inf)
    score[:2] = emit[0, :2]
    back = np.zeros((len(emit), n), np.int64)
    for t in range(1, len(emit)):
        stay, step, jump = score, np.roll(score, 1), np.roll(score, 2)
        step[0] = jump[0] = jump[1] = -np.inf
        jump = np.where(skip, jump, -np.inf)
        choices = np.stack([stay, step, jump])
        back[t] = choices.argmax(0)
        score = choices.max(0) + emit[t]
    state = n - 1 if score[-1] >= score[-2] else n - 2
    if not np.isfinite(score[state]):
        return []
    path = [state]
    for t in range(len(emit) - 1, 0, -1):
        state -= int(back[t, state])
        path.append(state)
    return path[::-1]


def word_spans(symbols: Sequence[Symbol]) -> list[tuple[str, float, float, float]]:
    """Words of an aligned or read line: text, start, end (in heights of the line), confidence.

    A cut lies half way between the symbols on its two sides; at the outer ends a word reaches 0.65
    of a symbol's width beyond the middle of its last one (CTC's peaks are narrower than letters).
    """
    words: list[list[Symbol]] = [[]]
    for symbol in symbols:
        if symbol.text.isspace():
            words.append([])
        else:
            words[-1].append(symbol)
    words = [word for word in words if word]
    spans = []
    for i, word in enumerate(words):
        middles = [(s.start + s.stop) / 2 for s in word]
        pitch = (middles[-1] - middles[0]) / (len(word) - 1) if len(word) > 1 else 0.5
        start, stop = middles[0] - 0.65 * pitch, middles[-1] + 0.65 * pitch
        if i:
            before = words[i - 1][-1]
            start = max(start, ((before.start + before.stop) / 2 + middles[0]) / 2)
        if i + 1 < len(words):
            after = words[i + 1][0]
            stop = min(stop, ((after.start + after.stop) / 2 + middles[-1]) / 2)
        spans.append(("".join(s.text for s in word), start, stop, mean_confidence(word)))
    return spans
