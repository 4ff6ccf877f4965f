"""Post-training quantisation to int8 on the user's own images, and how far its words agree.

Detector and encoder become int8; the decoder stays as it is, since its step costs next to nothing
after its step-independent part is cut out. Method: NNCF's post-training quantisation (symmetric
weights, activations ranged by statistics of the calibration images, fast bias correction).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.errors import BundleError, MissingExtraError, UsageError
from textspot_ray.records import ImageResult, Word
from textspot_ray.spotting.bundle import PARTS, Bundle, describe_files, load_bundle, write_spec
from textspot_ray.spotting.composite.contract import detector_ports
from textspot_ray.spotting.quantization_scope import outside_trunk
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, TextSpotter

MAX_WINDOWS = 150  # detector inputs kept for calibration: 3 MB each
MAX_BOXES = 300  # text features kept for calibration: 0.2 MB each
_SAME_BOX_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the parts see on real images.

    Attributes:
        windows: Detector inputs, 1 x H x W x 3, uint8, BGR.
        im_info: The second input of each, or None.
        features: Encoder inputs, 1 x 64 x 28 x 28, float32.
    """

    windows: tuple[NDArray[np.uint8], ...]
    im_info: tuple[NDArray[np.float32] | None, ...]
    features: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two bundles say the same of the same images.

    Attributes:
        images: Compared.
        boxes: Of the original.
        other_boxes: Of the other.
        paired: Pairs that overlap by more than half (IoU of the upright boxes).
        words: Boxes of the original whose text one of the two is sure of.
        other_words: The same of the other.
        same_text: Pairs with the same text, of which one of the two is sure.
    """

    images: int
    boxes: int
    other_boxes: int
    paired: int
    words: int
    other_words: int
    same_text: int

    @property
    def box_agreement(self) -> float:
        """F-measure of boxes; 1 where neither found any."""
        return _f_measure(self.paired, self.boxes, self.other_boxes)

    @property
    def word_agreement(self) -> float:
        """F-measure of boxes with the same text; 1 where neither found any."""
        return _f_measure(self.same_text, self.words, self.other_words)


def calibrate(bundle: Bundle, images: Iterable[bytes]) -> Calibration:
    """Run the original on images and keep what its parts were given.

    Args:
        bundle: With f32 files.
        images: Encoded images; those that cannot be read are passed over.

    Raises:
        BundleError: No image could be read, or the bundle has no f32 files.
    """
    if "f32" not in bundle.spec.precisions:
        raise BundleError(f"bundle {bundle.spec.name} has no f32 files to quantise")
    pages = PageDetector(SpotterSettings(str(bundle.folder), precision="f32"))
    recorder = _Recorder(pages)
    features: list[NDArray[np.float32]] = []
    for data in images:
        if len(recorder.windows) >= MAX_WINDOWS:
            break
        _, found = pages.detect(data)
        features += [row[np.newaxis] for row in found[: MAX_BOXES - len(features)]]
    if not recorder.windows:
        raise BundleError("none of the calibration images can be read")
    return Calibration(tuple(recorder.windows), tuple(recorder.im_info), tuple(features))


def quantise(bundle: Bundle, calibration: Calibration, folder: Path) -> Bundle:
    """Write the int8 bundle.

    Args:
        bundle: The original.
        calibration: From `calibrate`; without text features the encoder stays in f32.
        folder: Empty or absent.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    runtime = Runtime(bundle, "f32", Share(1, 1))
    detector = runtime.read("detector")
    ports = detector_ports(detector, "detector")
    names = [port.any_name for port in detector.inputs]

    def fed(sample: tuple[NDArray[np.uint8], NDArray[np.float32] | None]) -> dict[str, Any]:
        window, info = sample
        planar = np.ascontiguousarray(window.transpose(0, 3, 1, 2)).astype(np.float32)
        inputs: dict[str, Any] = {names[ports.image]: planar}
        if ports.im_info is not None:
            inputs[names[ports.im_info]] = info
        return inputs

    windows = list(zip(calibration.windows, calibration.im_info, strict=True))
    models = {
        "detector": _quantised(detector, windows, fed),
        "encoder": runtime.read("encoder"),
        "decoder": runtime.read("decoder"),
    }
    if calibration.features:
        models["encoder"] = _quantised(models["encoder"], list(calibration.features), None)
    folder.mkdir(parents=True, exist_ok=True)
    for part, model in models.items():
        ov.save_model(model, str(folder / f"{part}.xml"), compress_to_fp16=False)
    files = describe_files(folder, {part: (f"{part}.xml", f"{part}.bin") for part in PARTS})
    spec = bundle.spec
    provenance = {
        "made_by": "textspot models quantize",
        "original": f"{spec.name} {spec.version}",
        "original_sha256s": dict(bundle.sha256s("f32")),
        "calibrated_on": f"{len(windows)} windows, {len(calibration.features)} words",
    }
    write_spec(
        folder,
        replace(
            spec,
            name=f"{spec.name}-int8",
            precisions={"int8": files},
            default_precision="int8",
            provenance=provenance,
            accuracy={},
        ),
    )
    return load_bundle(str(folder))


def spot_all(
    bundle: Bundle, images: Mapping[str, bytes], precision: str, *, threads: int = 1
) -> dict[str, ImageResult]:
    """The account of each image that can be read, by the images' names."""
    settings = SpotterSettings(str(bundle.folder), precision=precision, threads=threads)
    spotter = TextSpotter(settings)
    results = {name: spotter.spot(data) for name, data in images.items()}
    return {name: result for name, result in results.items() if result.error is None}


def compare(
    original: Mapping[str, ImageResult],
    other: Mapping[str, ImageResult],
    text_threshold: float = 0.0,
) -> Agreement:
    """Pair the words of the same images, the best overlap first.

    Args:
        original: Accounts by the images' names.
        other: The same of the other bundle.
        text_threshold: A word that neither reads with so much confidence is noise to both, and
            counts as a box alone.
    """
    total = Agreement(len(original), 0, 0, 0, 0, 0, 0)
    for name, result in original.items():
        words, others = result.words, other[name].words if name in other else ()
        pairs = _pairs(words, others)
        sure = [w.text_confidence >= text_threshold for w in words]
        other_sure = [w.text_confidence >= text_threshold for w in others]
        for i, j in pairs:
            sure[i] = other_sure[j] = sure[i] or other_sure[j]
        total = replace(
            total,
            boxes=total.boxes + len(words),
            other_boxes=total.other_boxes + len(others),
            paired=total.paired + len(pairs),
            words=total.words + sum(sure),
            other_words=total.other_words + sum(other_sure),
            same_text=total.same_text
            + sum(sure[i] and words[i].text == others[j].text for i, j in pairs),
        )
    return total


def publish(bundle: Bundle, folder: Path, accuracy: Mapping[str, Any]) -> Bundle:
    """Move a draft to its place, with its measured agreement in the description.

    Raises:
        UsageError: Something is there already.
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
    """Raise a `UsageError` if something lies at a folder's place."""
    if folder.exists():
        raise UsageError(f"{folder} exists; name another place with --out")


def check_nncf() -> None:
    """Raise a `MissingExtraError` if NNCF is not installed."""
    if find_spec("nncf") is None:
        raise MissingExtraError("quantising to int8", "quantize")


class _Recorder:
    """Stands in for the detector's inference requests and keeps what they are given."""

    def __init__(self, pages: PageDetector) -> None:
        self.windows: list[NDArray[np.uint8]] = []
        self.im_info: list[NDArray[np.float32] | None] = []
        detector = pages._detector
        self._image, self._info = detector._ports.image, detector._ports.im_info
        self._request = detector._requests.get()
        detector._requests.put(self)

    def infer(self, inputs: dict[int, Any], **options: Any) -> None:
        if len(self.windows) < MAX_WINDOWS:
            self.windows.append(inputs[self._image].copy())
            self.im_info.append(None if self._info is None else inputs[self._info].copy())
        self._request.infer(inputs, **options)

    def get_output_tensor(self, index: int) -> Any:
        return self._request.get_output_tensor(index)


def _quantised(model: Any, samples: list[Any], transform: Any) -> Any:
    check_nncf()
    import nncf

    nncf.set_log_level(logging.ERROR)  # it tells of every operator it leaves alone
    _name_apart(model)
    # mixed: asymmetric activations, which signed feature maps of the pyramid need
    return nncf.quantize(
        model,
        nncf.Dataset(samples, transform),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=outside_trunk(model), validate=False),
    )


def _name_apart(model: Any) -> None:
    """Give every operator a name of its own: NNCF goes by names, converters repeat some."""
    seen: set[str] = set()
    for number, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if name in seen:
            node.set_friendly_name(f"{name}/{number}")
        seen.add(name)


def _pairs(words: Sequence[Word], others: Sequence[Word]) -> list[tuple[int, int]]:
    """Which word of the one is which of the other."""
    overlaps = sorted(
        (
            (overlap, i, j)
            for i, a in enumerate(words)
            for j, b in enumerate(others)
            if (overlap := _iou(a.box, b.box)) > _SAME_BOX_IOU
        ),
        reverse=True,
    )
    left, right = set(range(len(words))), set(range(len(others)))
    pairs = []
    for _, i, j in overlaps:
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            pairs.append((i, j))
    return pairs


def _f_measure(matched: int, first: int, second: int) -> float:
    return 2 * matched / (first + second) if first + second else 1.0


def _iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)
