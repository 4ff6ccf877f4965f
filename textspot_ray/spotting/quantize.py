"""Post-training quantisation to int8 on the user's own images, and the agreement of its words.

The family decides which parts become int8; the others are copied. Method: NNCF's post-training
quantisation (symmetric weights, activations ranged by statistics of the calibration images, fast
bias correction).
"""

from __future__ import annotations

import queue
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.config import ImageConfig
from textspot_ray.errors import BundleError, UsageError
from textspot_ray.records import ImageResult, Word
from textspot_ray.spotting.bundle import Bundle, describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.family import family_of
from textspot_ray.spotting.geometry import box_ious, one_to_one
from textspot_ray.spotting.int8 import MAX_BOXES, Calibration
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, TextSpotter

MAX_WINDOWS = 150  # detector inputs kept for calibration: 3 MB each
_SAME_BOX_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two bundles on the same images.

    Attributes:
        images: Compared.
        boxes: Of the original.
        other_boxes: Of the other.
        paired: Pairs that overlap by more than half (IoU of the upright boxes).
        words: Boxes of the original whose text one of the two reads with confidence.
        other_words: The same of the other.
        same_text: Pairs with the same text that one of the two reads with confidence.
    """

    images: int
    boxes: int = 0
    other_boxes: int = 0
    paired: int = 0
    words: int = 0
    other_words: int = 0
    same_text: int = 0

    @property
    def box_agreement(self) -> float:
        """F-measure of boxes; 1 where neither found any."""
        return _f_measure(self.paired, self.boxes, self.other_boxes)

    @property
    def word_agreement(self) -> float:
        """F-measure of boxes with the same text; 1 where neither found any."""
        return _f_measure(self.same_text, self.words, self.other_words)


def calibrate(bundle: Bundle, images: Iterable[bytes]) -> Calibration:
    """Run the original on images and record the inputs of its parts.

    Args:
        bundle: With f32 files.
        images: Encoded images; those that cannot be read are skipped.

    Raises:
        BundleError: No image could be read, or the bundle has no f32 files.
    """
    if "f32" not in bundle.spec.precisions:
        raise BundleError(f"bundle {bundle.spec.name} has no f32 files to quantise")
    everything = ImageConfig(tiles="all")
    pages = PageDetector(SpotterSettings(bundle.model, precision="f32", image=everything))
    recorder = _Recorder(pages.requests)
    features: list[Any] = []
    regions = 0
    for data in images:
        if len(recorder.inputs) >= MAX_WINDOWS:
            break
        _, found = pages.detect(data)
        if regions < MAX_BOXES:
            features.append(found)
            regions += len(found)
    if not recorder.inputs:
        raise BundleError("none of the calibration images can be read")
    return Calibration(tuple(recorder.inputs), tuple(features))


def quantise(bundle: Bundle, calibration: Calibration, folder: Path) -> Bundle:
    """Write the int8 bundle.

    Args:
        bundle: The original.
        calibration: From `calibrate`; without text features the encoder stays in f32.
        folder: Empty or absent.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    models = family_of(bundle.spec).quantised(bundle, calibration)
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, tuple[str, ...]] = {}
    for part, files in bundle.model_files("f32").parts.items():
        if part in models:
            names[part] = (f"{part}.xml", f"{part}.bin")
            ov.save_model(models[part], str(folder / f"{part}.xml"), compress_to_fp16=False)
            continue
        names[part] = tuple(f"{part}.{suffix}" for suffix in files.files)
        for suffix, file in files.files.items():
            shutil.copyfile(bundle.path(file), folder / f"{part}.{suffix}")
    files_now = describe_files(folder, names)
    spec = bundle.spec
    provenance = {
        "made_by": "textspot models quantize",
        "original": f"{spec.name} {spec.version}",
        "original_sha256s": dict(bundle.sha256s("f32")),
        "calibrated_on": f"{len(calibration.inputs)} windows",
        **{key: spec.provenance[key] for key in ("publisher", "reads") if key in spec.provenance},
    }
    write_spec(
        folder,
        replace(
            spec,
            name=f"{spec.name}-int8",
            precisions={"int8": files_now},
            default_precision="int8",
            provenance=provenance,
            accuracy={},
        ),
    )
    return load_bundle(str(folder))


def spot_all(
    bundle: Bundle, images: Mapping[str, bytes], precision: str, *, threads: int = 1
) -> dict[str, ImageResult]:
    """The result of each image that can be read, by name."""
    settings = SpotterSettings(bundle.model, precision=precision, threads=threads)
    spotter = TextSpotter(settings)
    results = {name: spotter.spot(data) for name, data in images.items()}
    return {name: result for name, result in results.items() if result.error is None}


def agreement_of(
    original: Mapping[str, ImageResult],
    other: Mapping[str, ImageResult],
    text_threshold: float = 0.0,
) -> Agreement:
    """Pair the words of the same images, the best overlap first.

    Args:
        original: Results by the images' names.
        other: The same of the other bundle.
        text_threshold: A word that both read with less confidence is noise, and counts only as a
            box.
    """
    sums: Counter[str] = Counter()
    for name, result in original.items():
        words, others = result.words, other[name].words if name in other else ()
        pairs = _pairs(words, others)
        sure = [w.text_confidence >= text_threshold for w in words]
        other_sure = [w.text_confidence >= text_threshold for w in others]
        for i, j in pairs:
            sure[i] = other_sure[j] = sure[i] or other_sure[j]
        sums["boxes"] += len(words)
        sums["other_boxes"] += len(others)
        sums["paired"] += len(pairs)
        sums["words"] += sum(sure)
        sums["other_words"] += sum(other_sure)
        sums["same_text"] += sum(sure[i] and words[i].text == others[j].text for i, j in pairs)
    return Agreement(len(original), **sums)


def publish(bundle: Bundle, folder: Path, accuracy: Mapping[str, Any]) -> Bundle:
    """Move a draft to its final folder, with its measured agreement in the description.

    Raises:
        UsageError: The folder exists or cannot be written.
    """
    write_spec(bundle.folder, replace(bundle.spec, accuracy=accuracy))
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(bundle.folder, folder)
    except OSError as exc:
        raise UsageError(f"cannot write {folder}: {exc.strerror or exc}") from exc
    return load_bundle(str(folder))


def check_free(folder: Path) -> None:
    """Raise a `UsageError` if the path exists."""
    if folder.exists():
        raise UsageError(f"{folder} exists; name another place with --out")


class _Recorder:
    """Replaces one of the detector's inference requests and records its inputs."""

    def __init__(self, requests: queue.SimpleQueue[Any]) -> None:
        self.inputs: list[dict[int, NDArray[Any]]] = []
        self._request = requests.get()
        requests.put(self)

    def infer(self, inputs: dict[int, Any], **options: Any) -> None:
        if len(self.inputs) < MAX_WINDOWS:
            self.inputs.append({index: array.copy() for index, array in inputs.items()})
        self._request.infer(inputs, **options)

    def get_output_tensor(self, index: int) -> Any:
        return self._request.get_output_tensor(index)


def _pairs(words: Sequence[Word], others: Sequence[Word]) -> list[tuple[int, int]]:
    """Pairs of words that are at the same place."""
    iou = box_ious([word.box for word in words], [word.box for word in others])
    overlaps = [(int(i), int(j)) for i, j in np.argwhere(iou > _SAME_BOX_IOU)]
    return one_to_one(sorted(overlaps, key=lambda pair: iou[pair], reverse=True))


def _f_measure(matched: int, first: int, second: int) -> float:
    return 2 * matched / (first + second) if first + second else 1.0
