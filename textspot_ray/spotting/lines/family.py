"""The family ``lines``: regions are lines of text, their features are strips of pixels."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from textspot_ray.errors import ConfigError
from textspot_ray.records import Detection
from textspot_ray.spotting.bundle import ALL, LATIN, BundleSpec, LinesRules
from textspot_ray.spotting.family import (
    Recognizes,
    RegionDetector,
    TilingRule,
    WindowFindings,
    WordsOf,
)
from textspot_ray.spotting.lines.words import words_of_line

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded
    from textspot_ray.spotting.bundle import Bundle
    from textspot_ray.spotting.int8 import Calibration
    from textspot_ray.spotting.lines.detector import LineDetector
    from textspot_ray.spotting.lines.strips import LineStrips
    from textspot_ray.spotting.runtime import Runtime
    from textspot_ray.spotting.settings import Resolved, SpotterSettings
    from textspot_ray.spotting.tiling import Seen, TileWindow

# Lines are cut out of a picture with this multiple of the detector input's resolution: text that is
# just large enough to be found would be too small to be read.
_FINER = 2.0
# Pictures come in hundreds of shapes. After 90 of them the detector uses 200 MB more than before
# the first (429 and growing with OpenVINO's own limit), at a cost of 3 % of its time.
_SHAPE_ENTRIES = 1000
# Raised whenever the family's own code changes words, boxes or confidences.
_VERSION = 3
# what a recogniser must tell for its words to be weighed
_LETTERS = frozenset(string.ascii_letters + string.digits)
# A picture counts as long if it is shrunk this many times more than its area requires.
_LONG = 2.0


class LinesFamily:
    """See `textspot_ray.spotting.family.Family`."""

    def load_detector(self, settings: SpotterSettings) -> RegionDetector:
        """Compile the detector."""
        from textspot_ray.spotting.lines.db import DbRules
        from textspot_ray.spotting.lines.detector import InputRule, LineDetector, detection_model
        from textspot_ray.spotting.lines.rewrites import lighter_detector
        from textspot_ray.spotting.runtime import Runtime, Share
        from textspot_ray.spotting.settings import resolve

        resolved = resolve(settings)
        rules = _rules(resolved.bundle.spec)
        share = Share(settings.threads, min(settings.streams, settings.threads))
        runtime = Runtime(resolved.bundle, resolved.precision, share)
        lighter = lighter_detector(_checked_detector(resolved, runtime))
        model = detection_model(lighter, rules.mean, rules.std, rules.channels)
        detector = LineDetector(
            runtime.compile(model, shape_entries=_SHAPE_ENTRIES),
            InputRule(rules.shortest_side, rules.longest_side),
            DbRules(
                binarize_threshold=rules.binarize_threshold,
                score_threshold=resolved.detection_threshold,
                unclip_ratio=rules.unclip_ratio,
                dilate=rules.dilate,
            ),
            share.streams,
        )
        spec = resolved.bundle.spec
        return LineRegions(detector, rules, spec.zoom_below)

    def load_recognizer(self, settings: SpotterSettings) -> Recognizes:
        """Compile the recogniser, cut to the alphabet, and the classifier if there is one."""
        from textspot_ray.spotting.lines.contract import (
            check_classifier,
            kept_classes,
            reads_batches,
        )
        from textspot_ray.spotting.lines.recognizer import (
            MAX_BATCH,
            LineRecognizer,
            letters_of,
            reading_model,
            takes_bytes,
        )
        from textspot_ray.spotting.lines.weighing import LineWeigher
        from textspot_ray.spotting.runtime import Runtime, Share
        from textspot_ray.spotting.settings import resolve

        resolved = resolve(settings)
        share = Share(settings.threads, settings.threads)
        runtime = Runtime(resolved.bundle, resolved.precision, share)
        model, characters, where = _checked_recognizer(resolved, runtime)
        kept = kept_classes(characters, resolved.alphabet)
        known = characters if kept is None else tuple(characters[i] for i in kept)
        space = known.index(" ") if " " in known else None
        most = MAX_BATCH if reads_batches(model) else 1
        dictionary, letters = resolved.dictionary(), letters_of(known)
        if settings.words and letters is None:
            raise ConfigError(
                f"model.words: {resolved.bundle.spec.name}, with this alphabet, lacks some of a-z, "
                "A-Z and 0-9, and weighs no words"
            )
        weigher = None
        if dictionary is not None and letters is not None:
            weigher = LineWeigher(dictionary, resolved.bundle.spec.dictionary_below)
        told = letters if weigher else None
        compiled = runtime.compile(reading_model(model, kept, space, where, told))
        classifier = None
        files = resolved.bundle.model_files(resolved.precision)
        if "classifier" in files.parts:
            turned = runtime.read("classifier")
            check_classifier(turned, files["classifier"].graph.file)
            classifier = runtime.compile(takes_bytes(turned))
        threshold = _rules(resolved.bundle.spec).space_threshold
        return LineRecognizer(
            compiled, known, settings.threads, threshold, classifier, most, weigher
        )

    def recognizer_threads(self, detector: int, usual: int) -> int:
        """As many as the detector's: reading is two thirds of the work on documents and a fifth on
        photos, and when one of the two is idle the other uses its cores."""
        return detector

    def words_of(self, spec: BundleSpec) -> WordsOf:
        """A line's words, split at its spaces."""
        return partial(words_of_line, height=_rules(spec).word_height)

    def check_graphs(self, resolved: Resolved) -> None:
        """Check inputs and outputs of the graphs, and that the characters are known."""
        from textspot_ray.spotting.lines.contract import check_classifier, kept_classes
        from textspot_ray.spotting.lines.recognizer import reading_model
        from textspot_ray.spotting.runtime import Runtime, Share

        runtime = Runtime(resolved.bundle, resolved.precision, Share())
        _checked_detector(resolved, runtime)
        model, characters, where = _checked_recognizer(resolved, runtime)
        reading_model(model, kept_classes(characters, resolved.alphabet), None, where)
        files = resolved.bundle.model_files(resolved.precision)
        if "classifier" in files.parts:
            check_classifier(runtime.read("classifier"), files["classifier"].graph.file)

    def fingerprint(self, resolved: Resolved) -> Mapping[str, str]:
        """The alphabet and all rules."""
        rules = _rules(resolved.bundle.spec)
        dictionary = resolved.dictionary()
        # a recogniser that was cut to other letters weighs no words
        weighs = resolved.alphabet in (ALL, LATIN) or _LETTERS.issubset(resolved.alphabet)
        return {
            "lines_version": str(_VERSION),
            "alphabet": resolved.alphabet,
            "resize": f"shortest {rules.shortest_side}, longest {rules.longest_side}",
            "channels": rules.channels,
            "mean": " ".join(f"{value:g}" for value in rules.mean),
            "std": " ".join(f"{value:g}" for value in rules.std),
            "binarize_threshold": f"{rules.binarize_threshold:g}",
            "unclip_ratio": f"{rules.unclip_ratio:g}",
            "dilate": str(rules.dilate).lower(),
            "word_height": f"{rules.word_height:g}",
            "space_threshold": f"{rules.space_threshold:g}",
            "long_scale": f"{rules.long_scale:g}",
            "tile_factor": f"{rules.tile_factor:g}",
            "zoom_below": f"{resolved.bundle.spec.zoom_below:g}",
            **({"split_words": "joined"} if weighs and dictionary and dictionary.words else {}),
        }

    def quantised(self, bundle: Bundle, calibration: Calibration) -> Mapping[str, Any]:
        """Only the detector: in int8 the recogniser loses half of the words of a receipt."""
        from textspot_ray.spotting.int8 import quantised_model
        from textspot_ray.spotting.lines.detector import model_input
        from textspot_ray.spotting.lines.rewrites import lighter_detector
        from textspot_ray.spotting.runtime import Runtime, Share

        # rewritten first: the patterns are not found in a quantised graph
        detector = lighter_detector(Runtime(bundle, "f32", Share(1, 1)).read("detector"))
        rules = _rules(bundle.spec)
        samples = [
            model_input(i[0], rules.mean, rules.std, rules.channels) for i in calibration.inputs
        ]
        return {"detector": quantised_model(detector, samples)}

    def limits(self, spec: BundleSpec) -> str:
        """The scripts that the recogniser knows."""
        reads = spec.provenance.get("reads")
        return f"reads {reads}" if reads else ""


FAMILY = LinesFamily()


class LineRegions:
    """The detector's lines as regions; see `textspot_ray.spotting.family.RegionDetector`."""

    joins_pieces = True  # a line's strip is cut out of the picture afterwards
    gives_evidence = True  # the probability map

    def __init__(self, detector: LineDetector, rules: LinesRules, zoom_below: float) -> None:
        self._detector = detector
        self._tile_factor = rules.tile_factor
        self._zoom_below = zoom_below
        self._longest = rules.longest_side
        self._long_scale = rules.long_scale

    def tiling(self, width: int, height: int, over: float) -> TilingRule:
        """Later than for a detector of words, but at once for long receipts and panoramas.

        Fitted by their long side these would be shrunk far more than their area requires: at
        ``finest`` all tiles together are one full input, or the picture is not shrunk at all.
        """
        over *= self._tile_factor
        finest = max(1.0, math.sqrt(width * height) / self._longest)
        if max(width, height) / self._longest > _LONG * finest:
            over = min(finest, over)
        return TilingRule((self._longest, self._longest), over, self._zoom_below)

    def decode_size(self, width: int, height: int) -> tuple[int, int]:
        """Finer than the input, since strips are cut out of the picture."""
        scale = min(1.0, _FINER * self._longest / max(width, height))
        return int(width * scale), int(height * scale)

    def overview_size(self, width: int, height: int) -> tuple[int, int]:
        """The same: strips of text that is large enough are cut out of the overview."""
        return self.decode_size(width, height)

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
        """Find lines in a window."""
        from textspot_ray.spotting.geometry import angle_deg, order_corners, polygon_box
        from textspot_ray.spotting.tiling import cut

        found = self._detector.detect(cut(decoded, window))
        rows, columns = decoded.image.shape[:2]
        corners = found.corners * (decoded.width / columns, decoded.height / rows)
        corners += (window.x, window.y)
        detections = []
        for quad, score in zip(corners, found.scores.tolist(), strict=True):
            polygon = order_corners(quad)
            box = polygon_box(polygon, decoded.width, decoded.height)
            if box is not None:
                detections.append(Detection(score, box, polygon, angle_deg(polygon)))
        detections.sort(key=lambda d: (d.box[1], d.box[0], d.box))
        shown = found.probability if evidence else None
        return WindowFindings(tuple(detections), None, found.saturated, shown)

    def fitting(self, seen: list[Seen]) -> list[Seen]:
        """As many lines as fit into memory, the most confident first."""
        from textspot_ray.spotting.lines.strips import MAX_COLUMNS, columns_of

        widths = [columns_of(s.detection.polygon, self._long_scale) for s in seen]
        if sum(widths) <= MAX_COLUMNS:
            return seen
        kept, total = set(), 0
        for i in sorted(range(len(seen)), key=lambda i: (-seen[i].detection.confidence, i)):
            if total + widths[i] <= MAX_COLUMNS:
                kept.add(i)
                total += widths[i]
        return [s for i, s in enumerate(seen) if i in kept]

    def features(
        self, decoded: Decoded, findings: list[WindowFindings], kept: Sequence[Seen]
    ) -> LineStrips:
        """The lines' strips."""
        import numpy as np

        from textspot_ray.spotting.lines.strips import cut_strips

        rows, columns = decoded.image.shape[:2]
        scale = np.array((columns / decoded.width, rows / decoded.height))
        quads = [np.array(s.detection.polygon).reshape(4, 2) * scale for s in kept]
        return cut_strips(decoded.image, quads, self._long_scale)

    def no_features(self) -> LineStrips:
        """No strips."""
        from textspot_ray.spotting.lines.strips import no_strips

        return no_strips()


def _rules(spec: BundleSpec) -> LinesRules:
    return spec.lines or LinesRules()


def _checked_detector(resolved: Resolved, runtime: Runtime) -> Any:
    from textspot_ray.spotting.lines.contract import check_detector

    files = resolved.bundle.model_files(resolved.precision)
    model = runtime.read("detector")
    check_detector(model, files["detector"].graph.file)
    return model


def _checked_recognizer(resolved: Resolved, runtime: Runtime) -> tuple[Any, tuple[str, ...], str]:
    from textspot_ray.spotting.lines.contract import (
        check_characters,
        check_recognizer,
        read_characters,
    )

    files = resolved.bundle.model_files(resolved.precision)
    where = files["recognizer"].graph.file
    model = runtime.read("recognizer")
    check_recognizer(model, where)
    listed = files.parts.get("characters")
    characters = read_characters(
        model, where, resolved.bundle.path(listed.graph) if listed is not None else None
    )
    check_characters(model, where, characters)
    return model, characters, where
