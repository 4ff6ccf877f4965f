"""RapidOCR's words on photographs with ground truth, scored as `textspot evaluate` scores a table.

RapidOCR finds lines and says where in a line its words lie; a line of one word keeps its own box.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from jobs.bench.embedded import interpreter
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.bootstrap import hmean_interval
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.matching import measure, score
from textspot_ray.evaluation.rules import Rules, ScoringTask
from textspot_ray.export.names import image_key

_RIVAL = """
import json, logging, os, sys
logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from rapidocr import RapidOCR
engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": int(sys.argv[1])})
for photo in sys.argv[2:]:
    found = engine(photo, return_word_box=True)
    rows = []
    for i, text in enumerate(found.txts or ()):
        words = [(w[0], w[2]) for w in found.word_results[i]]
        if len(words) < 2:
            words = [(text, found.boxes[i].tolist())]
        rows += [(word, [float(n) for point in box for n in point]) for word, box in words]
    print(json.dumps(rows), file=answers)
"""


def rapidocr_words(
    photos: Sequence[Path], python: Path | None, cores: int
) -> dict[str, list[Predicted]]:
    """RapidOCR's words by image key, polygons in pixels of the photos.

    Raises:
        MissingExtraError: This interpreter has no rapidocr.
        UsageError: The named interpreter cannot run it.
    """
    program = interpreter(python)
    paths = [str(photo.resolve()) for photo in photos]
    try:
        done = subprocess.run(
            [program, "-c", _RIVAL, str(cores), *paths], capture_output=True, text=True, check=False
        )
    except OSError as exc:
        raise UsageError(f"cannot run {program}: {exc.strerror}") from exc
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(photos):
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise UsageError(f"{program} cannot run RapidOCR: {last}")
    return {
        image_key(photo.name): [Predicted(tuple(box), text) for text, box in json.loads(answer)]
        for photo, answer in zip(photos, answers, strict=True)
    }


def scaled(
    words: Sequence[Predicted], photo: Path, gt_size: tuple[int, int] | None
) -> list[Predicted]:
    """Words of a photo in pixels of the ground truth."""
    if gt_size is None:
        return list(words)
    image = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise UsageError(f"{photo} cannot be decoded")
    factors = (gt_size[0] / image.shape[1], gt_size[1] / image.shape[0])
    return [
        Predicted(tuple(v * factors[n % 2] for n, v in enumerate(w.polygon)), w.text) for w in words
    ]


def score_rapidocr(
    photos: Sequence[Path],
    gt: Mapping[str, Sequence[GtWord]],
    gt_size: tuple[int, int] | None,
    python: Path | None,
    cores: int,
) -> str:
    """Figures of all tasks as a Markdown table.

    Args:
        photos: Images; those without ground truth are left out.
        gt: By image key.
        gt_size: Width and height that the ground truth's coordinates belong to; None: the photos'.
        python: Interpreter that has rapidocr; None = this one.
        cores: Threads it may use.

    Raises:
        UsageError: No photo has ground truth, or RapidOCR cannot be run.
    """
    known = [photo for photo in photos if image_key(photo.name) in gt]
    if not known:
        raise UsageError("no photo is named like the ground truth (img_7.jpg, gt_img_7.txt)")
    found = rapidocr_words(known, python, cores)
    found = {image_key(p.name): scaled(found[image_key(p.name)], p, gt_size) for p in known}
    measured = measure({key: gt[key] for key in sorted(found)}, found)
    rows = [
        f"| RapidOCR, {len(known)} photos | recall | precision | hmean | 95 % |",
        "|---" * 5 + "|",
    ]
    for task in (ScoringTask.WORD_SPOTTING, ScoringTask.END_TO_END, ScoringTask.DETECTION):
        scores = score(measured, Rules(task))
        figures, interval = scores.figures, hmean_interval(scores)
        rows.append(
            f"| {task.value} | {figures.recall:.2%} | {figures.precision:.2%} "
            f"| {figures.hmean:.2%} | {interval.low:.2%} - {interval.high:.2%} |"
        )
    return "\n".join(rows)
