"""The published composite as a family: boxes with masks, and features of 64 x 28 x 28 a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Detection, Reading, Word
from textspot_ray.spotting.bundle import BundleSpec
from textspot_ray.spotting.family import (
    Recognizes,
    RegionDetector,
    TilingRule,
    WindowFindings,
    WordsOf,
)

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded
    from textspot_ray.spotting.bundle import Bundle
    from textspot_ray.spotting.composite.detector import Detector, RawRows
    from textspot_ray.spotting.int8 import Calibration
    from textspot_ray.spotting.settings import Resolved, SpotterSettings
    from textspot_ray.spotting.tiling import Seen, TileWindow

_MAX_DISTORTION = 1.5
# For the overview a JPEG is decoded at 1/4 where 1/2 would be twice what is needed: 12 megapixels
# of 4:3 are then 1 % to 3 % smaller than the input.
_OVERVIEW_ENLARGED = 1.05


class CompositeFamily:
    """See `textspot_ray.spotting.family.Family`."""

    def load_detector(self, settings: SpotterSettings) -> RegionDetector:
        """Compile the detector."""
        from textspot_ray.spotting.composite.detector import Detector
        from textspot_ray.spotting.runtime import Runtime, Share
        from textspot_ray.spotting.settings import resolve

        resolved = resolve(settings)
        share = Share(settings.threads, min(settings.streams, settings.threads))
        return WordRegions(Detector(resolved, Runtime(resolved.bundle, resolved.precision, share)))

    def load_recognizer(self, settings: SpotterSettings) -> Recognizes:
        """Compile encoder and decoder."""
        from textspot_ray.spotting.composite.recognizer import Recognizer

        return Recognizer(settings)

    def recognizer_threads(self, detector: int, usual: int) -> int:
        """The usual: reading is a tenth of the work."""
        return usual

    def words_of(self, spec: BundleSpec) -> WordsOf:
        """A box is a word."""
        return word_of_box

    def check_graphs(self, resolved: Resolved) -> None:
        """Check inputs and outputs of the graphs."""
        from textspot_ray.spotting.composite.contract import (
            check_augmentation,
            check_encoder,
            decoder_ports,
            detector_ports,
        )
        from textspot_ray.spotting.runtime import Runtime, Share

        bundle, precision = resolved.bundle, resolved.precision
        runtime, files = Runtime(bundle, precision, Share()), bundle.model_files(precision)
        detector_ports(runtime.read("detector"), files["detector"].graph.file)
        check_encoder(runtime.read("encoder"), files["encoder"].graph.file)
        decoder = runtime.read("decoder")
        decoder_ports(decoder, files["decoder"].graph.file, len(bundle.spec.alphabet) + 2)
        if "augmentation" in files.parts:
            check_augmentation(runtime.read("augmentation"), files["augmentation"].graph.file)

    def fingerprint(self, resolved: Resolved) -> Mapping[str, str]:
        """Steps, symbols and the way the picture is resized."""
        spec = resolved.bundle.spec
        shapes = "".join(f" {width}x{height}" for width, height in spec.shapes)
        if spec.max_stretch > 1:
            shapes += f" stretch {spec.max_stretch:g}"
        if spec.enlargement > 1:
            shapes += f" enlarged {spec.enlargement:g}"
        if spec.shapes:  # older tables took whole inputs for all pictures
            shapes += " smallest"
        low, high = spec.augment_between
        return {
            "max_steps": str(resolved.max_steps),
            **({"augment_between": f"{low:g} {high:g}"} if high > low else {}),
            "alphabet": spec.alphabet,
            "resize": f"{spec.resize} {spec.interpolation}{shapes}",
            "max_rows": str(spec.max_rows),
            "zoom_below": f"{spec.zoom_below:g}",
            # since it decides how sums are rounded
            **({"read_batch": str(spec.read_batch)} if spec.read_batch > 1 else {}),
            **({"shrink_above": f"{spec.shrink_above:g}"} if spec.shrink_above else {}),
        }

    def quantised(self, bundle: Bundle, calibration: Calibration) -> Mapping[str, Any]:
        """Detector and encoder.

        The decoder's step costs almost nothing once its step-independent part is removed. Without
        text in the calibration images the encoder stays in f32.
        """
        from textspot_ray.spotting.composite.contract import detector_ports
        from textspot_ray.spotting.int8 import MAX_BOXES, quantised_model
        from textspot_ray.spotting.runtime import Runtime, Share

        runtime = Runtime(bundle, "f32", Share(1, 1))
        detector = runtime.read("detector")
        ports = detector_ports(detector, "detector")
        names = [port.any_name for port in detector.inputs]

        def fed(inputs: Mapping[int, NDArray[Any]]) -> dict[str, Any]:
            given = {names[index]: array for index, array in inputs.items()}
            image = given[names[ports.image]]
            own_type = detector.input(ports.image).element_type.to_dtype()
            return {**given, names[ports.image]: image.astype(own_type)}

        models = {"detector": quantised_model(detector, list(calibration.inputs), fed)}
        rows = [row[np.newaxis] for page in calibration.features for row in page][:MAX_BOXES]
        if rows:
            models["encoder"] = quantised_model(runtime.read("encoder"), rows)
        return models

    def limits(self, spec: BundleSpec) -> str:
        """The alphabet."""
        return f"reads {_in_words(spec.alphabet)} only"


def _in_words(alphabet: str) -> str:
    """``a-z and 0-9`` for the usual alphabet; otherwise the alphabet itself."""
    letters, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
    if set(alphabet) == set(letters + digits):
        return "a-z and 0-9"
    return "a-z" if set(alphabet) == set(letters) else alphabet


FAMILY = CompositeFamily()


class WordRegions:
    """The detector's boxes as regions; see `textspot_ray.spotting.family.RegionDetector`."""

    joins_pieces = False  # features are cut out by the detector itself

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def tiling(self, width: int, height: int, over: float) -> TilingRule:
        """By the input that shows the picture largest; narrow strips are tiled earlier."""
        return TilingRule(
            self._detector.input_size_for(width, height),
            self._detector.tile_over(width, height, over),
            self._detector.zoom_below,
            self._detector.small_size_for(width, height),
            self._detector.shrink_above,
        )

    @property
    def gives_evidence(self) -> bool:
        """If the graph has a score map, as one-stage detectors have."""
        return self._detector.has_score_map

    def decode_size(self, width: int, height: int) -> tuple[int, int]:
        """The model's input: nothing else looks at the picture."""
        return self._detector.input_size_for(width, height)

    def overview_size(self, width: int, height: int) -> tuple[int, int]:
        """A little less than the part of the input that the picture fills."""
        input_width, input_height = self._detector.input_size_for(width, height)
        scale = min(input_width / width, input_height / height) / _OVERVIEW_ENLARGED
        return int(width * scale), int(height * scale)

    @property
    def requests(self) -> Any:
        """The detector's idle requests."""
        return self._detector.requests

    def find(
        self,
        decoded: Decoded,
        window: TileWindow,
        *,
        whole: bool,
        evidence: bool = False,
        fill: bool = True,
    ) -> WindowFindings:
        """Find words in a window."""
        from textspot_ray.spotting.tiling import cut

        stretch = whole or self._is_like_input(window)
        if evidence:
            size = window.width / window.shrink, window.height / window.shrink
            found = self._detector.detect(
                cut(decoded, window), stretch=stretch, hold=size, fill=fill
            )
        else:
            found = self._detector.detect(cut(decoded, window), stretch=stretch)
        detections, rows = _detections(found, window, decoded)
        features = found.features if len(rows) == len(found.features) else found.features[rows]
        return WindowFindings(detections, features, found.saturated, found.evidence)

    def fitting(self, seen: list[Seen]) -> list[Seen]:
        """All: the detector has its own limit."""
        return seen

    def features(
        self, decoded: Decoded, findings: list[WindowFindings], kept: Sequence[Seen]
    ) -> NDArray[np.float32]:
        """Rows of the findings' features; each window's are released once they are copied.

        A page of many tiles has thousands of words: all rows and those kept would not fit side by
        side.
        """
        from textspot_ray.spotting.composite.contract import FEATURE_SHAPE

        if len(findings) == 1 and [seen.row for seen in kept] == [*range(len(findings[0].rows))]:
            only: NDArray[np.float32] = findings[0].rows
            return only
        places: dict[int, list[int]] = {}
        for place, seen in enumerate(kept):
            places.setdefault(seen.row, []).append(place)
        rows = np.empty((len(kept), *FEATURE_SHAPE), np.float32)
        first = 0
        while findings:
            found = findings.pop(0)
            for number in range(len(found.rows)):
                for place in places.get(first + number, ()):
                    rows[place] = found.rows[number]
            first += len(found.rows)
        return rows

    def no_features(self) -> NDArray[np.float32]:
        """No rows."""
        from textspot_ray.spotting.composite.contract import FEATURE_SHAPE

        return np.zeros((0, *FEATURE_SHAPE), np.float32)

    def _is_like_input(self, window: TileWindow) -> bool:
        """Whether stretching a window of a tiled image distorts it by less than the limit.

        Panoramas and strips would otherwise be stretched to many times their height.
        """
        width, height = self._detector.input_size
        ratio = (window.width / window.height) / (width / height)
        return 1 / _MAX_DISTORTION <= ratio <= _MAX_DISTORTION


def word_of_box(number: int, detection: Detection, reading: Reading) -> tuple[Word, ...]:
    """The word of a box, if it has text."""
    if not reading.text:
        return ()
    word = Word(
        text=reading.text,
        text_confidence=reading.confidence,
        char_confidences=reading.char_confidences,
        detection_confidence=detection.confidence,
        box=detection.box,
        polygon=detection.polygon,
        angle_deg=detection.angle_deg,
    )
    return (word,)


def _detections(
    found: RawRows, window: TileWindow, decoded: Decoded
) -> tuple[tuple[Detection, ...], list[int]]:
    """Rows of a window as detections in the pixels of the upright original, and their numbers."""
    from textspot_ray.spotting.geometry import angle_deg, clip_box, mask_polygon

    rows, columns = decoded.image.shape[:2]
    scale_x, scale_y = decoded.width / columns, decoded.height / rows
    boxes = found.boxes * (scale_x, scale_y, scale_x, scale_y)
    boxes += (window.x, window.y, window.x, window.y)
    kept, numbers = [], []
    for i, (box, score, mask) in enumerate(zip(boxes, found.scores, found.masks, strict=True)):
        inside = clip_box(box, decoded.width, decoded.height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            continue  # entirely in the padding beside the picture
        polygon = mask_polygon(mask, (box[0], box[1], box[2], box[3]))
        kept.append(
            Detection(
                confidence=float(score),
                box=inside,
                polygon=polygon,
                angle_deg=angle_deg(polygon),
            )
        )
        numbers.append(i)
    return tuple(kept), numbers
