"""The kinds of input that are one image: a path, a URI, bytes, a PIL image, or pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textspot_ray.config import ImageConfig
from textspot_ray.errors import UsageError, one_line
from textspot_ray.images.pixels import from_pillow, on_background, upright
from textspot_ray.redaction import redact_text
from textspot_ray.sources.identity import canonical, locate
from textspot_ray.storage.faults import Fault, fault_of, hint_for, reason_of
from textspot_ray.storage.filesystem import LOCAL, native_path, split_uri
from textspot_ray.storage.volumes import open_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ("bgr", "rgb")
_ORIENTATION = 0x0112  # EXIF


def image_content(
    image: Any,
    colours: str = "bgr",
    max_bytes: int = ImageConfig().max_bytes,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[str, bytes | NDArray[np.uint8]]:
    """Name and content of an input.

    Args:
        image: A path, a URI, encoded bytes, an open binary file, a PIL image, or
            H x W (x 1, 3 or 4) uint8 pixels.
        colours: Order of the channels of pixels: ``bgr`` or ``rgb``.
        max_bytes: Of a file.
        storage_options: fsspec options by protocol, for URIs.

    Returns:
        The name (empty if it has none), and encoded bytes or H x W x 3 uint8 BGR pixels.

    Raises:
        UsageError: It cannot be read, or is none of these.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return "", bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return _fetched(os.fspath(image), max_bytes, storage_options)
    if isinstance(image, np.ndarray):
        return "", _bgr(image, colours)
    if hasattr(image, "getbands") and hasattr(
        image, "getexif"
    ):  # a PIL image; PIL need not be imported
        name = str(getattr(image, "filename", "") or "")
        return name, _from_pil(image, name)
    if callable(getattr(image, "read", None)):
        try:
            data = image.read()
        except UnicodeDecodeError:
            data = None  # text mode
        if isinstance(data, bytes):
            name = getattr(image, "name", "")
            return name if isinstance(name, str) else "", data
        raise UsageError("a file of an image must be opened in binary mode: open(path, 'rb')")
    raise UsageError(
        "an image must be a path, a URI, bytes, a PIL image or an array, "
        f"not a {type(image).__name__}"
    )


def _fetched(
    where: str | bytes, max_bytes: int, options: Mapping[str, Any] | None
) -> tuple[str, bytes]:
    where = os.fsdecode(where)
    if "\0" in where:
        raise UsageError("a path cannot hold a null character: give encoded images as bytes")
    protocol, rest = split_uri(where)
    path = native_path(protocol, rest)
    if protocol == LOCAL and "://" in where and not os.path.lexists(path):
        path = locate(where)[1]  # percent-encoded, as in tables
    shown = redact_text(where)
    if protocol == LOCAL and Path(path).is_dir():
        raise UsageError(
            f"{shown} is a folder: textspot run reads folders; in Python, spot() or run()"
        )
    volume = open_volume(protocol, options)
    try:
        volume.check_connection()
        data, _ = volume.read_tagged(path, max_bytes)
    except UsageError:
        raise
    except Exception as exc:
        hint = "" if protocol == LOCAL or fault_of(exc) is Fault.MISSING else hint_for(exc)
        hint = f" ({hint})" if hint else ""
        if isinstance(exc, FileNotFoundError) and any(mark in path for mark in "*?["):
            hint = " (patterns are for textspot run; in Python, spot() or run())"
        raise UsageError(f"cannot read {shown}: {reason_of(exc)}{hint}") from exc
    if data is None:
        raise UsageError(f"cannot read {shown}: it is larger than {max_bytes:,} bytes")
    return (where if protocol == LOCAL else canonical(protocol, path)), data


def _from_pil(image: Any, name: str) -> NDArray[np.uint8]:
    try:
        image.load()
        pixels, _ = from_pillow(image)
        return upright(pixels, image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError) as exc:
        reason = one_line(exc)
        raise UsageError(f"cannot use the PIL image {name}: {reason}".replace(" :", ":")) from exc


def _bgr(pixels: NDArray[Any], colours: str) -> NDArray[np.uint8]:
    if colours not in COLOURS:
        raise UsageError(f"colours must be bgr or rgb, not {colours!r}")
    shape = pixels.shape
    channels = shape[2] if pixels.ndim == 3 else 1
    is_image = len(shape) in (2, 3) and 0 not in shape and channels in (1, 3, 4)
    if pixels.dtype != np.uint8 or not is_image:
        raise UsageError(f"pixels must be H x W (x 3 or 4) uint8, not {shape} {pixels.dtype}")
    if channels == 1:
        grey = pixels.reshape(shape[0], shape[1], 1)
        return np.ascontiguousarray(np.repeat(grey, 3, axis=2))
    if colours == "rgb":
        pixels = pixels[:, :, [2, 1, 0, 3][:channels]]
    if channels == 4:
        return on_background(np.ascontiguousarray(pixels))
    return np.ascontiguousarray(pixels)
