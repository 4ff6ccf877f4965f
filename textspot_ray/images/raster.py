"""What readers are given and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from textspot_ray.images.headers import BrokenHeaderError, Header
from textspot_ray.records import ErrorKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# What one image may take, its encoded bytes and its pixels included: with the libraries that are
# loaded a process then stays below 2.5 GiB. See `table.Row.bytes_per_pixel`.
MAX_DECODE_BYTES = 2_400 * 2**20
_MANY_BYTES = 65_536


class RefusedError(Exception):
    """The image is not decoded; becomes an `ImageError`."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def unsupported(what: str, advice: str) -> RefusedError:
    """The error for a kind that is not read: its name, and what to do."""
    return RefusedError(ErrorKind.UNSUPPORTED, f"{what} is not supported: {advice}")


Fit = tuple[int, int] | Callable[[int, int], tuple[int, int]]


class FileMemory:
    """What was found out about the last file of several pages, so that it is parsed once.

    For one set of rules (`DecodeJob.tiff_levels`); threads that decode different files only cost
    each other a look more.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[bytes, Any] = (b"", None)

    def found(self, data: bytes) -> Any:
        """What was kept of this very file; else None, and another file's is forgotten."""
        held, found = self._last
        if held is data:
            return found
        self._last = (b"", None)
        return None

    def keep(self, data: bytes, found: Any) -> None:
        """Keep what was found out about a file."""
        self._last = (data, found)


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One page to decode; its fields are explained by `decode.decode`, which fills them."""

    data: bytes
    page: int
    max_pixels: int
    fit: Fit | None
    tiff_levels: bool = False
    pdf_dpi: int = 200
    memory: FileMemory | None = None

    def check(self, width: int, height: int) -> None:
        """Refuse sizes that are impossible or too large."""
        if width <= 0 or height <= 0:
            raise BrokenHeaderError(f"impossible size {width} x {height}")
        if width * height > self.max_pixels:
            raise RefusedError(
                ErrorKind.TOO_LARGE,
                f"{width} x {height} = {width * height / 1e6:.0f} Mpx, more than "
                f"image.max_pixels = {self.max_pixels / 1e6:g} Mpx",
            )

    def reserve(
        self, size: tuple[int, int], bytes_per_pixel: float, what: object, beside: float = 0
    ) -> None:
        """Refuse what a decoder would need too much memory for.

        Args:
            size: Width and height.
            bytes_per_pixel: At the peak, the result included.
            what: The kind of image, for the message.
            beside: Bytes of other things than pixels; the encoded file is counted in any case.

        Raises:
            RefusedError: It is more than the limit.
        """
        area = size[0] * size[1]
        needed = bytes_per_pixel * area + beside + len(self.data)
        if needed > MAX_DECODE_BYTES:
            raise RefusedError(
                ErrorKind.TOO_LARGE,
                f"decoding {what} of {area / 1e6:.0f} Mpx needs about {needed / 2**30:.1f} GiB, "
                f"more than the limit of {MAX_DECODE_BYTES / 2**30:.1f} GiB: store it in tiles, "
                "with 8 bits or smaller",
            )

    def reduction(self, header: Header) -> int:
        """Largest of 8, 4, 2, 1 that leaves at least `fit` pixels of a stored image."""
        if self.fit is None:
            return 1
        stored, turned = header.size, header.orientation >= 5
        fit = self.fit
        if callable(fit):
            fit = fit(*(stored[::-1] if turned else stored))
        need_x, need_y = fit[::-1] if turned else fit
        for divisor in (8, 4, 2):
            if stored[0] // divisor >= need_x and stored[1] // divisor >= need_y:
                return divisor
        return 1


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels as a reader gives them, not yet turned.

    Attributes:
        image: H x W x 3 uint8, BGR.
        width, height: Stored size, also when decoded at a reduced scale.
        format: Name for the tables.
        orientation: EXIF orientation 1..8 that is still to be undone.
        pages: Pages in the file.
        damage: What a decoder complained of, in one line; None if nothing.
        note: What was assumed of the values.
        payload: Encoded image data, to tell a blank page from a decoder that failed in silence;
            None where blank is what the reader itself made sure of.
    """

    image: Pixels
    width: int
    height: int
    format: str
    orientation: int = 1
    pages: int = 1
    damage: str | None = None
    note: str | None = None
    payload: memoryview | None = None


def check_shape(image: NDArray[Any], width: int, height: int) -> None:
    """See to it that a decoder gave as many pixels as the header has.

    Args:
        image: Rows first.
        width: As the header says.
        height: Likewise.

    Raises:
        BrokenHeaderError: It did not.
    """
    if image.shape[:2] != (height, width):
        raise BrokenHeaderError(
            f"decoded to {image.shape[1]} x {image.shape[0]}, not {width} x {height}"
        )


def is_long(payload: memoryview) -> bool:
    """Whether encoded data are too many to leave them unexamined."""
    return len(payload) >= _MANY_BYTES


def is_varied(payload: memoryview) -> bool:
    """Whether long encoded data are too irregular to stand for one colour.

    A page of one colour is encoded in few bytes, or in many that repeat: deflating a sample of
    it again shrinks it twenty times.
    """
    import zlib

    middle = len(payload) // 2
    sample = bytes(payload[middle - _MANY_BYTES // 2 : middle + _MANY_BYTES // 2])
    return len(zlib.compress(sample, 1)) > len(sample) // 20
