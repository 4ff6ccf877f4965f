"""The interface of a model family; everything else is written against it.

A family finds *regions* (words, lines) in windows of a picture, computes features of each kept
region, which travel to its recogniser, and makes words of a region and its reading. The form of the
features is known only to the family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Detection, Reading, Readings, Word
from textspot_ray.spotting.bundle import LINES, SPOTTING, BundleSpec

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded
    from textspot_ray.spotting.bundle import Bundle
    from textspot_ray.spotting.int8 import Calibration
    from textspot_ray.spotting.settings import Resolved, SpotterSettings
    from textspot_ray.spotting.tiling import Seen, TileWindow

_MODULES = {
    SPOTTING: "textspot_ray.spotting.composite.family",
    LINES: "textspot_ray.spotting.lines.family",
}


class Features(Protocol):
    """Features of a page's regions: picklable, and of known size."""

    @property
    def nbytes(self) -> int:
        """Bytes that they take in transit."""

    def __len__(self) -> int:
        """Number of regions."""


@dataclass(frozen=True, slots=True)
class WindowFindings:
    """Regions found in a window.

    Attributes:
        detections: In pixels of the upright original, inside it.
        rows: What the family needs to compute their features, row for row; opaque.
        saturated: Whether a limit of the model was reached, so that text may be missing.
        evidence: H x W over the window, float32, 0 to 1: whether each place is inside text, also
            where it is too small to be found. None if the model cannot say or was not asked.
    """

    detections: tuple[Detection, ...]
    rows: Any
    saturated: bool
    evidence: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class TilingRule:
    """Parameters of tiling.

    Attributes:
        input_size: Width and height in pixels that a picture, or a tile of it, is fitted into.
        over: Tile when it would be shrunk by more than this.
        zoom_below: Cut a pass of many words that are lower than this, input px; 0 = never.
        small: Width and height, input px, of windows that cost a quarter of a whole one; None: all
            cost the same.
        shrink_above: Words higher than this, input px, are seen better in a coarser pass; 0 =
            never.
    """

    input_size: tuple[int, int]
    over: float
    zoom_below: float = 0.0
    small: tuple[int, int] | None = None
    shrink_above: float = 0.0


class RegionDetector(Protocol):
    """A loaded detector; may be called from several threads."""

    def tiling(self, width: int, height: int, over: float) -> TilingRule:
        """How a picture of that size is tiled if it may be shrunk by at most ``over``."""

    @property
    def joins_pieces(self) -> bool:
        """Whether a region cut by tiles may be joined from its pieces."""

    @property
    def gives_evidence(self) -> bool:
        """Whether findings can have `WindowFindings.evidence`."""

    def decode_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which a picture of that size must at least be decoded."""

    def overview_size(self, width: int, height: int) -> tuple[int, int]:
        """The same for the overview, which only decides where tiles are needed."""

    @property
    def requests(self) -> Any:
        """Idle inference requests, a queue: calibration puts one that records among them."""

    def find(
        self,
        decoded: Decoded,
        window: TileWindow,
        *,
        whole: bool,
        evidence: bool = False,
        fill: bool = True,
    ) -> WindowFindings:
        """Find regions in a window.

        Args:
            decoded: The picture.
            window: Which may be the whole of it.
            whole: Whether this is the only pass over the picture.
            evidence: Whether `WindowFindings.evidence` is wanted; the window may then be fitted
                into the smallest input that shows it at its shrink.
            fill: Such a window may be shown larger, as far as the input goes.
        """

    def fitting(self, seen: list[Seen]) -> list[Seen]:
        """The regions whose features fit into a page's limit; usually all."""

    def features(
        self, decoded: Decoded, findings: list[WindowFindings], kept: Sequence[Seen]
    ) -> Features:
        """Features of the kept regions, in their order; ``row`` counts over all findings.

        The findings may be removed from the list, to free their memory.
        """

    def no_features(self) -> Features:
        """Features of a page without regions."""


class Recognizes(Protocol):
    """A loaded recogniser; may be called from several threads."""

    def read(self, features: Any) -> Readings:
        """Readings row for row with the features."""

    def blank(self) -> Features:
        """Features of one region without text, for a trial run of the recogniser."""


class WordsOf(Protocol):
    """Makes words of a region; picklable, and free of heavy imports."""

    def __call__(self, number: int, detection: Detection, reading: Reading) -> tuple[Word, ...]:
        """The words of region ``number`` of a page, in reading order; may be empty."""


class Family(Protocol):
    """A kind of model."""

    def load_detector(self, settings: SpotterSettings) -> RegionDetector:
        """Verify and compile a bundle's detector."""

    def load_recognizer(self, settings: SpotterSettings) -> Recognizes:
        """Verify and compile a bundle's recogniser."""

    def recognizer_threads(self, detector: int, usual: int) -> int:
        """Threads of a slot's recogniser, given the detector's and the usual small share."""

    def words_of(self, spec: BundleSpec) -> WordsOf:
        """How a bundle's readings become words."""

    def check_graphs(self, resolved: Resolved) -> None:
        """Check the graphs against the family's contract, without compiling them."""

    def fingerprint(self, resolved: Resolved) -> Mapping[str, str]:
        """The family's own settings that change results, by name."""

    def quantised(self, bundle: Bundle, calibration: Calibration) -> Mapping[str, Any]:
        """The parts that become int8, as models by name; the others stay as they are."""

    def limits(self, spec: BundleSpec) -> str:
        """What a bundle can read, in a few words; may be empty."""


def family_of(spec: BundleSpec) -> Family:
    """The family of a bundle."""
    family: Family = import_module(_MODULES[spec.family]).FAMILY
    return family
