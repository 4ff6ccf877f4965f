"""From encoded bytes to words: page detector, assembly of results, and the one-call spotter."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from textspot_ray.config import ImageConfig, load_config
from textspot_ray.errors import UsageError, one_line
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.images.raster import FileMemory, Fit
from textspot_ray.records import (
    DetectedPage,
    ErrorKind,
    ImageError,
    ImageResult,
    Item,
    PageInfo,
    Readings,
    Stage,
    Word,
)
from textspot_ray.redaction import redact_text
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.coarse_to_fine import (
    LevelPlan,
    has_contrast,
    look_from_coarse_to_fine,
    plan_levels,
)
from textspot_ray.spotting.composite.family import word_of_box
from textspot_ray.spotting.cutting import look_closer
from textspot_ray.spotting.family import (
    Family,
    Features,
    Recognizes,
    WindowFindings,
    WordsOf,
    family_of,
)
from textspot_ray.spotting.geometry import polygon_box
from textspot_ray.spotting.inputs import image_content
from textspot_ray.spotting.large_words import look_from_afar, regions_of
from textspot_ray.spotting.own_words import read_own_words
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.tiling import TileWindow, cut, merge, plan_passes

FEATURES_IN_MEMORY: Final = 512 * 2**20  # bytes, of all windows of a picture


class PageDetector:
    """Decodes a page and finds its words; holds the compiled detector.

    Args:
        settings: Bundle, precision, thresholds, tiling rules and threads.

    Raises:
        BundleError: The bundle is missing, damaged or breaks the contract.
    """

    def __init__(self, settings: SpotterSettings) -> None:
        self._rules = settings.image
        self._tiff_levels, self._pdf_dpi = settings.tiff_levels, settings.pdf_dpi
        self._memory = FileMemory()
        self._regions = family_named(settings.model).load_detector(settings)

    @property
    def requests(self) -> Any:
        """The detector's idle inference requests, a queue."""
        return self._regions.requests

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, Features]:
        """Find the words of one page.

        Args:
            data: The encoded image.
            page: Page of a multi-page file, from 0.

        Returns:
            The page's result and the features, row for row with its detections. An image that
            cannot be read has its error in the result; nothing is raised for it.
        """
        started = time.perf_counter()
        decoded = self._decode(data, page, self._needed_first)
        decode_s = time.perf_counter() - started

        def larger() -> Decoded:
            nonlocal decode_s
            again = time.perf_counter()
            found = self._decode(data, page, self._needed)
            decode_s += time.perf_counter() - again
            if isinstance(found, ImageError):
                raise _UndecodableError(found)
            return found

        if isinstance(decoded, ImageError):
            return DetectedPage(None, (), decoded, decode_s), self._regions.no_features()
        try:
            detected, features = self.detect_pixels(decoded, larger)
        except _UndecodableError as exc:
            return DetectedPage(None, (), exc.error, decode_s), self._regions.no_features()
        except (RuntimeError, ValueError, MemoryError) as exc:
            error = ImageError(Stage.DETECT, ErrorKind.INTERNAL, one_line(exc))
            return DetectedPage(_info(decoded), (), error, decode_s), self._regions.no_features()
        detect_s = time.perf_counter() - started - decode_s
        return (
            replace(detected, decode_s=decode_s, detect_s=detect_s),
            features,
        )

    def detect_pixels(
        self, decoded: Decoded, larger: Callable[[], Decoded] | None = None
    ) -> tuple[DetectedPage, Features]:
        """Find the words of a decoded image.

        Args:
            decoded: The image, at full size or as small as the pass over the whole of it needs it.
            larger: Decodes it again as large as tiles need it.

        Returns:
            As `detect`.
        """
        width, height = decoded.width, decoded.height
        if min(width, height) < self._rules.min_side:
            return DetectedPage(_info(decoded, tiles=0), ()), self._regions.no_features()
        pixels = _Pixels(decoded, larger, self._needed(width, height))
        with _WindowRows() as held:
            return self._detect_pixels(pixels, held)

    def _detect_pixels(self, pixels: _Pixels, held: _WindowRows) -> tuple[DetectedPage, Features]:
        width, height = pixels.decoded.width, pixels.decoded.height
        made, lost = self._look(pixels, held)
        rule = self._regions.tiling(width, height, self._rules.tile_over)
        large_above = 0.0 if self._rules.tiles == "off" else rule.shrink_above
        if large_above:

            def look(window: TileWindow) -> WindowFindings:
                found = self._regions.find(
                    pixels.decoded, window, whole=False, evidence=True, fill=False
                )
                return held.hold(found)

            made += look_from_afar(made, width, height, look, large_above)
        decoded = pixels.decoded
        seen = regions_of(made, width, height, large_above)
        if len(made) > 1:
            joins = self._regions.joins_pieces
            large_above = large_above or math.inf
            seen = merge(seen, width, height, joins=joins, large_above=large_above)
        kept = self._regions.fitting(seen)
        saturated = lost or len(kept) < len(seen)
        info = _info(decoded, tiles=len(made), saturated=saturated)
        findings = [found for _, found in made]
        made.clear()  # so that each window's features go as soon as they are copied
        features = self._regions.features(decoded, findings, kept)
        detections = tuple(s.detection for s in kept)
        return DetectedPage(info, detections, feature_bytes=features.nbytes), features

    def _look(
        self, pixels: _Pixels, held: _WindowRows
    ) -> tuple[list[tuple[TileWindow, WindowFindings]], bool]:
        """All passes over a picture, and whether a saturated one could not be cut any more."""
        width, height = pixels.decoded.width, pixels.decoded.height
        rule = self._regions.tiling(width, height, self._rules.tile_over)
        overlap = self._rules.tile_overlap

        def shrink_of(width: int, height: int) -> float:
            input_width, input_height = self._regions.tiling(width, height, 1.0).input_size
            return max(width / input_width, height / input_height)

        plan = self._plan(width, height)
        if len(plan.levels) > 1:

            def look_for(window: TileWindow) -> WindowFindings:
                decoded = pixels.for_window(window)
                return held.hold(self._regions.find(decoded, window, whole=False, evidence=True))

            return look_from_coarse_to_fine(plan, look_for, shrink_of, overlap, rule.zoom_below)
        passes = self._passes(width, height)
        whole = len(passes) == 1
        if self._rules.tiles == "auto":  # without a score map: all tiles that are not blank
            shown = [tile for tile in passes[:-1] if self._has_contrast(pixels.decoded, tile)]
            passes = (*shown, passes[-1])

        def look(window: TileWindow) -> WindowFindings:
            return held.hold(self._regions.find(pixels.decoded, window, whole=whole))

        if self._rules.tiles == "off":
            found = [(window, look(window)) for window in passes]
            return found, any(f.saturated for _, f in found)
        return look_closer(passes, look, shrink_of, overlap, rule.zoom_below)

    def _has_contrast(self, decoded: Decoded, tile: TileWindow) -> bool:
        return has_contrast(cut(decoded, tile), tile.shrink * decoded.scale_x)

    def _plan(self, width: int, height: int) -> LevelPlan:
        """Levels for coarse-to-fine detection; a single one if that is not used."""
        rule = self._regions.tiling(width, height, self._rules.tile_over)
        share = self._rules.tile_overlap
        is_staged = self._rules.tiles == "auto" and self._regions.gives_evidence
        over = rule.over if is_staged else math.inf
        return plan_levels(width, height, rule.input_size, over, share, rule.small)

    def _passes(self, width: int, height: int) -> tuple[TileWindow, ...]:
        rule = self._regions.tiling(width, height, self._rules.tile_over)
        over = math.inf if self._rules.tiles == "off" else rule.over
        return plan_passes(width, height, *rule.input_size, over, self._rules.tile_overlap)

    def _decode(self, data: bytes, page: int, fit: Fit) -> Decoded | ImageError:
        return decode(
            data,
            page=page,
            max_pixels=self._rules.max_pixels,
            fit=fit,
            tiff_levels=self._tiff_levels,
            pdf_dpi=self._pdf_dpi,
            memory=self._memory,
        )

    def _needed_first(self, width: int, height: int) -> tuple[int, int]:
        """As `_needed`, for the first pass of coarse-to-fine detection."""
        if len(self._plan(width, height).levels) > 1:
            return self._regions.overview_size(width, height)
        return self._needed(width, height)

    def _needed(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which an image must at least be decoded: no larger than needed."""
        wide, high = self._regions.decode_size(width, height)
        if len(self._passes(width, height)) > 1:
            over = self._regions.tiling(width, height, self._rules.tile_over).over
            wide, high = max(wide, int(width / over)), max(high, int(height / over))
        return wide, high


class _WindowRows:
    """Features of the windows of one picture: in memory up to a limit, the rest on disk.

    On a page with thousands of words most are found in two or more windows, with 200 kB each, and
    which of them is kept is only known at the end.
    """

    def __init__(self) -> None:
        self._left = FEATURES_IN_MEMORY
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _WindowRows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def hold(self, found: WindowFindings) -> WindowFindings:
        """The same findings; their rows may be memory-mapped from disk."""
        rows = found.rows
        if not isinstance(rows, np.ndarray) or not rows.nbytes:
            return found
        self._left -= rows.nbytes
        if self._left >= 0:
            return found
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="textspot-")  # noqa: SIM115
            at = self._file.seek(0, os.SEEK_END)
            rows.tofile(self._file)
            self._file.flush()
            on_disk = np.memmap(self._file, rows.dtype, "r", at, rows.shape)
        except OSError:  # a full disk: keep them in memory
            return found
        return replace(found, rows=on_disk)


class _UndecodableError(Exception):
    """A picture whose overview was decoded cannot be decoded at full size."""

    def __init__(self, error: ImageError) -> None:
        super().__init__(error.message)
        self.error = error


class _Pixels:
    """A picture, decoded as large as the passes so far need it.

    Args:
        decoded: As large as the pass over the whole picture needs it.
        larger: Decodes it as large as tiles need it; None: it is already.
        needed: Minimal width and height for tiles.
    """

    def __init__(
        self, decoded: Decoded, larger: Callable[[], Decoded] | None, needed: tuple[int, int]
    ) -> None:
        self.decoded = decoded
        self._larger = larger
        rows, columns = decoded.image.shape[:2]
        if columns >= min(needed[0], decoded.width) and rows >= min(needed[1], decoded.height):
            self._larger = None

    def for_window(self, window: TileWindow) -> Decoded:
        """The picture, decoded again for the first window that is not the whole picture."""
        larger = self._larger
        is_whole = (window.width, window.height) == (self.decoded.width, self.decoded.height)
        if larger is not None and not is_whole:
            self._larger = None
            self.decoded = larger()
        return self.decoded


def family_named(model: str) -> Family:
    """The family of a bundle, by the bundle's name or folder.

    Raises:
        BundleError: The bundle is missing or wrongly described.
    """
    return family_of(load_bundle(model).spec)


def load_recognizer(settings: SpotterSettings) -> Recognizes:
    """Compile the recogniser of a bundle of any family.

    Raises:
        BundleError: The bundle is missing, damaged or breaks the contract.
    """
    return family_named(settings.model).load_recognizer(settings)


def words_of(settings: SpotterSettings) -> WordsOf:
    """How a bundle's readings become words; picklable.

    Raises:
        BundleError: The bundle is missing or wrongly described.
    """
    spec = load_bundle(settings.model).spec
    return family_of(spec).words_of(spec)


def assemble(
    item: Item,
    page: int,
    detected: DetectedPage,
    readings: Readings | None,
    read_s: float = 0.0,
    make_words: WordsOf = word_of_box,
) -> ImageResult:
    """Join the results of detector and recogniser for a page.

    Args:
        item: Where the page came from.
        page: Its number, from 0.
        detected: The detector's result.
        readings: Row for row with its detections; None if there was nothing to read.
        read_s: Seconds spent on reading the bytes.
        make_words: How the bundle's family makes words of a reading.

    Returns:
        Words in the detections' order; regions without text are counted, not kept.
    """
    read = readings.readings if readings is not None else ()
    found: list[tuple[Word, ...]] = []
    if detected.error is None:
        pairs = zip(detected.detections, read, strict=True)
        found = [make_words(i, detection, reading) for i, (detection, reading) in enumerate(pairs)]
    return ImageResult(
        item=item,
        page=page,
        info=detected.info,
        words=tuple(_boxed(word, detected.info) for words in found for word in words),
        n_unread=sum(not words for words in found),
        error=detected.error,
        read_s=read_s,
        decode_s=detected.decode_s,
        detect_s=detected.detect_s,
        recognise_s=readings.recognise_s if readings is not None else 0.0,
    )


class TextSpotter:
    """Spots words in one image at a time, in this process.

    Example:
        >>> spotter = TextSpotter.load("embedded")
        >>> [word.text for word in spotter("street.jpg")]
    """

    def __init__(self, settings: SpotterSettings) -> None:
        self._settings = settings
        self._pid = os.getpid()
        self._pages = PageDetector(settings)
        self._recognizer = load_recognizer(settings)
        self._words_of = words_of(settings)

    def __repr__(self) -> str:
        return f"TextSpotter({self._settings.model!r})"

    @property
    def text_threshold(self) -> float:
        """The bundle's threshold: words below it are wrong as often as right."""
        return load_bundle(self._settings.model).spec.text_threshold

    @classmethod
    def load(
        cls,
        model: str = "embedded",
        *,
        precision: str | None = None,
        detection_threshold: float | None = None,
        alphabet: str | None = None,
        dictionary: bool = True,
        words: str | os.PathLike[str] | frozenset[str] | None = None,
        threads: int | None = None,
        image: ImageConfig | None = None,
    ) -> TextSpotter:
        """Load a bundle.

        Args:
            model: ``embedded``, a fetched model's name, or a bundle's folder.
            precision: f32, bf16 or int8; None = the bundle's default.
            detection_threshold: None = the bundle's.
            alphabet: Of a bundle of lines: all, latin, or the characters; None = the bundle's.
            dictionary: Whether unsure readings are weighed by the bundle's list of words.
            words: Words of your own that weigh them, too: a UTF-8 text's path or URI, or what
                `read_own_words` gives.
            threads: Inference threads; None = the cores this process may use.
            image: Decoding limits and tiling rules.

        Raises:
            ConfigError: An option is wrong, as it would be in the command line or in YAML.
            BundleError: The bundle is missing, damaged or breaks the contract.
        """
        given = {
            "model.name": model,
            "model.precision": precision,
            "model.detection_threshold": detection_threshold,
            "model.alphabet": alphabet,
            "model.dictionary": dictionary,
            "engine.threads": threads,
        }
        checked = load_config(values=given)
        own = words if isinstance(words, frozenset) else frozenset()
        if words is not None and not isinstance(words, frozenset):
            own = read_own_words(os.fspath(words))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(
            SpotterSettings(
                model=checked.model.name,
                precision=checked.model.precision,
                detection_threshold=checked.model.detection_threshold,
                alphabet=checked.model.alphabet,
                dictionary=checked.model.dictionary,
                words=own,
                image=image or ImageConfig(),
                threads=checked.engine.threads or cores or 1,
            )
        )

    def __call__(self, image: Any, *, min_confidence: float = 0.0) -> list[Word]:
        """Spot the words of an image.

        Args:
            image: A path, a URI, encoded bytes, an open binary file, a PIL image, or
                H x W (x 3 or 4) uint8 BGR pixels.
            min_confidence: Words below it are left out; commands that read tables use
                ``text_threshold``.

        Returns:
            The words; by default every non-empty reading above the detection threshold.

        Raises:
            UsageError: The image cannot be read or decoded.
        """
        result = self.spot(image)
        if result.error is not None:
            raise UsageError(f"cannot spot {_name(image)}: {result.error.message}")
        return [word for word in result.words if word.text_confidence >= min_confidence]

    def spot(self, image: Any, page: int = 0) -> ImageResult:
        """Spot an image and return the full result: words or the error, sizes and times.

        Args:
            image: As for a call of the spotter.
            page: Page of a multi-page file, from 0.

        Raises:
            UsageError: The file cannot be read, or the pixels are not an image; or the spotter was
                loaded before a fork: without its threads, inference would hang.
        """
        if os.getpid() != self._pid:
            raise UsageError(
                f"a spotter loaded in process {self._pid} does not work in a fork of it: load it "
                "in the child, or start processes by spawn"
            )
        _, content = image_content(image, max_bytes=self._settings.image.max_bytes)
        if isinstance(content, np.ndarray):
            if page:
                raise UsageError(f"pixels have one page: there is no page {page}")
            detected, features = self._pages.detect_pixels(_as_decoded(content))
        else:
            detected, features = self._pages.detect(content, page)
        readings = self._recognizer.read(features)
        return assemble(Item("", ""), page, detected, readings, make_words=self._words_of)


def _boxed(word: Word, info: PageInfo | None) -> Word:
    """The word with the box of its polygon: a detector's box may cut the mask's rectangle."""
    box = None if info is None else polygon_box(word.polygon, info.width, info.height)
    return word if box is None else replace(word, box=box)


def _info(decoded: Decoded, *, tiles: int = 1, saturated: bool = False) -> PageInfo:
    return PageInfo(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        exif_orientation=decoded.exif_orientation,
        pages=decoded.pages,
        tiles=tiles,
        saturated=saturated,
        damage=decoded.damage,
    )


def _as_decoded(pixels: NDArray[np.uint8]) -> Decoded:
    height, width = pixels.shape[:2]
    return Decoded(pixels, width, height, 1.0, 1.0, "pixels", 1, 1)


def _name(image: object) -> str:
    if isinstance(image, (str, os.PathLike)):
        return redact_text(str(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"{len(image)} bytes"
    return f"a {type(image).__name__}"
