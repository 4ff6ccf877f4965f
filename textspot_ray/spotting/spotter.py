"""From encoded bytes to words: page detector, assembly of results, and the one-call spotter."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textspot_ray.config import ImageConfig
from textspot_ray.errors import UsageError
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.records import (
    DetectedPage,
    Detection,
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
from textspot_ray.spotting.composite.contract import FEATURE_SHAPE
from textspot_ray.spotting.composite.detector import Detector, RawRows
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.geometry import angle_deg, clip_box, mask_polygon
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings, resolve
from textspot_ray.spotting.tiling import Seen, TileWindow, merge, plan_passes

Features = NDArray[np.float32]

_MAX_DISTORTION = 1.5


class PageDetector:
    """Decodes a page and finds its words; holds the compiled detector.

    Args:
        settings: Bundle, precision, thresholds, tiling rules and threads.

    Raises:
        BundleError: The bundle is missing, damaged or breaks the contract.
    """

    def __init__(self, settings: SpotterSettings) -> None:
        resolved = resolve(settings)
        share = Share(settings.threads, min(settings.streams, settings.threads))
        self._rules = resolved.image
        self._detector = Detector(resolved, Runtime(resolved.bundle, resolved.precision, share))

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, Features]:
        """Find the words of one page.

        Args:
            data: The encoded image.
            page: Page of a multi-page file, from 0.

        Returns:
            The page's account and N x 64 x 28 x 28 features, row for row with its detections. An
            image that cannot be read has its error in the account; nothing is raised for it.
        """
        started = time.perf_counter()
        decoded = self._decode(data, page)
        decode_s = time.perf_counter() - started
        if isinstance(decoded, ImageError):
            return DetectedPage(None, (), decoded, decode_s), _no_features()
        try:
            detected, features = self.detect_pixels(decoded)
        except (RuntimeError, ValueError, MemoryError) as exc:
            error = ImageError(Stage.DETECT, ErrorKind.INTERNAL, _one_line(exc))
            return DetectedPage(_info(decoded), (), error, decode_s), _no_features()
        detect_s = time.perf_counter() - started - decode_s
        return (
            DetectedPage(detected.info, detected.detections, None, decode_s, detect_s),
            features,
        )

    def detect_pixels(self, decoded: Decoded) -> tuple[DetectedPage, Features]:
        """Find the words of a decoded image; arguments and result as `detect`."""
        width, height = decoded.width, decoded.height
        if min(width, height) < self._rules.min_side:
            return DetectedPage(_info(decoded, tiles=0), ()), _no_features()
        passes = self._passes(width, height)
        seen: list[Seen] = []
        rows: list[RawRows] = []
        first = 0
        for window in passes:
            stretch = len(passes) == 1 or self._is_like_input(window)
            found = self._detector.detect(_cut(decoded, window), stretch=stretch)
            rows.append(found)
            seen += _seen(found, window, decoded, first)
            first += len(found.scores)
        if len(passes) > 1:
            seen = merge(seen, width, height)
        features = np.concatenate([found.features for found in rows])
        info = _info(decoded, tiles=len(passes), saturated=any(r.saturated for r in rows))
        kept = (
            features[[s.row for s in seen]] if len(seen) != first or len(passes) > 1 else features
        )
        return DetectedPage(info, tuple(s.detection for s in seen)), kept

    def _is_like_input(self, window: TileWindow) -> bool:
        """Whether stretching a window of a tiled image distorts it by less than the limit.

        Panoramas and strips would otherwise be pulled many times as high as they are.
        """
        width, height = self._detector.input_size
        ratio = (window.width / window.height) / (width / height)
        return 1 / _MAX_DISTORTION <= ratio <= _MAX_DISTORTION

    def _passes(self, width: int, height: int) -> tuple[TileWindow, ...]:
        over = self._rules.tile_over if self._rules.tiles == "auto" else math.inf
        return plan_passes(
            width, height, *self._detector.input_size, over, self._rules.tile_overlap
        )

    def _decode(self, data: bytes, page: int) -> Decoded | ImageError:
        """Decode no larger than needed, which only the image's own size tells."""
        limit, fit = self._rules.max_pixels, self._detector.input_size
        decoded = decode(data, page=page, max_pixels=limit, fit=fit)
        if isinstance(decoded, ImageError) or self._rules.tiles == "off":
            return decoded
        over = self._rules.tile_over
        if len(self._passes(decoded.width, decoded.height)) > 1 and (
            min(decoded.scale_x, decoded.scale_y) < 1 / over
        ):
            fine = (math.ceil(decoded.width / over), math.ceil(decoded.height / over))
            return decode(data, page=page, max_pixels=limit, fit=fine)
        return decoded


def assemble(
    item: Item,
    page: int,
    detected: DetectedPage,
    readings: Readings | None,
    read_s: float = 0.0,
) -> ImageResult:
    """Join what the detector and the recogniser say of a page.

    Args:
        item: Where the page came from.
        page: Its number, from 0.
        detected: The detector's account.
        readings: Row for row with its detections; None where there was nothing to read.
        read_s: Seconds spent on bringing the bytes.

    Returns:
        Words in the detections' order; boxes without text are counted, not kept.
    """
    read = readings.readings if readings is not None else ()
    words: list[Word] = []
    if detected.error is None:
        words = [_word(d, r) for d, r in zip(detected.detections, read, strict=True) if r.text]
    return ImageResult(
        item=item,
        page=page,
        info=detected.info,
        words=tuple(words),
        n_unread=len(read) - len(words),
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
        self._pages = PageDetector(settings)
        self._recognizer = Recognizer(settings)

    @classmethod
    def load(
        cls,
        model: str = "embedded",
        *,
        precision: str | None = None,
        detection_threshold: float | None = None,
        threads: int | None = None,
        image: ImageConfig | None = None,
    ) -> TextSpotter:
        """Load a bundle.

        Args:
            model: ``embedded``, a fetched model's name, or a bundle's folder.
            precision: f32, bf16 or int8; None = the bundle's default.
            detection_threshold: None = the bundle's.
            threads: Inference threads; None = the cores this process may use.
            image: Decoding limits and tiling rules.

        Raises:
            BundleError: The bundle is missing, damaged or breaks the contract.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(
            SpotterSettings(
                model=model,
                precision=precision,
                detection_threshold=detection_threshold,
                image=image or ImageConfig(),
                threads=threads or cores or 1,
            )
        )

    def __call__(self, image: NDArray[np.uint8] | bytes | str | os.PathLike[str]) -> list[Word]:
        """Spot the words of an image.

        Args:
            image: H x W x 3 uint8 BGR pixels, an encoded image, or a local file's path.

        Returns:
            The words, every non-empty reading above the detection threshold.

        Raises:
            UsageError: The image cannot be read or decoded.
        """
        result = self.spot(image)
        if result.error is not None:
            raise UsageError(f"cannot spot {_name(image)}: {result.error.message}")
        return list(result.words)

    def spot(
        self, image: NDArray[np.uint8] | bytes | str | os.PathLike[str], page: int = 0
    ) -> ImageResult:
        """Spot an image and return its whole account: words, or the error, sizes and times.

        Args:
            image: As for a call of the spotter.
            page: Page of a multi-page file, from 0.

        Raises:
            UsageError: The file cannot be read, or the pixels are no image.
        """
        if isinstance(image, np.ndarray):
            detected, features = self._pages.detect_pixels(_as_decoded(image))
        else:
            detected, features = self._pages.detect(_bytes(image), page)
        readings = self._recognizer.read(features)
        return assemble(Item("", ""), page, detected, readings)


def _cut(decoded: Decoded, window: TileWindow) -> NDArray[np.uint8]:
    """The window's pixels out of an image that may have been decoded smaller."""
    rows, columns = decoded.image.shape[:2]
    x0, x1 = (round(v * columns / decoded.width) for v in (window.x, window.x + window.width))
    y0, y1 = (round(v * rows / decoded.height) for v in (window.y, window.y + window.height))
    return decoded.image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def _seen(found: RawRows, window: TileWindow, decoded: Decoded, first: int) -> list[Seen]:
    """Rows of a window as detections in the pixels of the upright original."""
    rows, columns = decoded.image.shape[:2]
    scale_x, scale_y = decoded.width / columns, decoded.height / rows
    boxes = found.boxes * (scale_x, scale_y, scale_x, scale_y)
    boxes += (window.x, window.y, window.x, window.y)
    seen = []
    for i, (box, score, mask) in enumerate(zip(boxes, found.scores, found.masks, strict=True)):
        inside = clip_box(box, decoded.width, decoded.height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            continue  # wholly in the padding beside the picture
        polygon = mask_polygon(mask, (box[0], box[1], box[2], box[3]))
        detection = Detection(
            confidence=float(score),
            box=inside,
            polygon=polygon,
            angle_deg=angle_deg(polygon),
        )
        seen.append(Seen(detection, window, first + i))
    return seen


def _word(detection: Detection, reading: Reading) -> Word:
    return Word(
        text=reading.text,
        text_confidence=reading.confidence,
        char_confidences=reading.char_confidences,
        detection_confidence=detection.confidence,
        box=detection.box,
        polygon=detection.polygon,
        angle_deg=detection.angle_deg,
    )


def _info(decoded: Decoded, *, tiles: int = 1, saturated: bool = False) -> PageInfo:
    return PageInfo(
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        exif_orientation=decoded.exif_orientation,
        pages=decoded.pages,
        tiles=tiles,
        saturated=saturated,
    )


def _no_features() -> Features:
    return np.zeros((0, *FEATURE_SHAPE), np.float32)


def _as_decoded(image: NDArray[np.uint8]) -> Decoded:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(f"an image must be H x W x 3 uint8 (BGR), not {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image)
    return Decoded(pixels, width, height, 1.0, 1.0, "pixels", 1, 1)


def _bytes(image: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read {image}: {exc.strerror}") from exc


def _name(image: object) -> str:
    return f"{len(image)} bytes" if isinstance(image, bytes) else str(image)


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__
