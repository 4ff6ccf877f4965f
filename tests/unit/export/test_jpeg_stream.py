"""JPEG streams that stand in a PDF as they are: same pixels, nothing of what else the file told."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from textspot_ray.export.jpeg_stream import plain_jpeg
from textspot_ray.images.decode import Decoded, decode

PIXELS = np.random.default_rng(5).integers(0, 255, (48, 64, 3), np.uint8)


def saved(mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x010E] = orientation, "taken at home"
    return made


def taken(data: bytes) -> tuple[bytes, int] | None:
    decoded = decode(data, max_pixels=10**6)
    assert isinstance(decoded, Decoded)
    return plain_jpeg(data, decoded)


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (saved(), 3),
        (saved("L"), 1),
        (saved(progressive=True), 3),
        (saved(subsampling=0, quality=97), 3),
        (saved(exif=exif(1), comment=b"secret", icc_profile=b"x" * 200), 3),
        (saved() + b"a preview behind the image, as phones have it", 3),
    ],
)
def test_plain_pictures_pass_with_their_pixels_and_nothing_else(data: bytes, channels: int) -> None:
    found = taken(data)
    assert found is not None and found[1] == channels
    for told in (b"taken at home", b"secret", b"preview", b"Exif", b"ICC_PROFILE"):
        assert told not in found[0]
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(found[0])) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_pictures_that_the_stream_does_not_show_are_encoded_anew() -> None:
    whole = saved()
    assert taken(saved(exif=exif(6))) is None, "turned"
    assert taken(saved("CMYK")) is None
    assert taken(whole[: len(whole) * 3 // 4]) is None, "damaged"
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG")
    assert taken(out.getvalue()) is None
    bare = whole[:2] + whole[20:]  # without JFIF: nothing says that it is YCbCr
    assert whole[6:10] == b"JFIF" and taken(bare) is None
