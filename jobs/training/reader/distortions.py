"""What is done to word crops before the reader sees them: light, focus, scale, a quad that is off.

A training example is a crop, distorted a little, cut along a quad that is off the true one as a
detector's would be.
"""

from __future__ import annotations

import cv2
import numpy as np

from jobs.training.data.word_crop import Crop, Floats, Image, Word, quad_height
from jobs.training.reader.cutting import Wave, cut
from jobs.training.render.photometry import motion_blur


def jitter_quad(rng: np.random.Generator, quad: Floats, strength: float = 1.0) -> Floats:
    """A quad as an imperfect detector would give it.

    As the embedded detector's quads lie on the words of photos 801-900 (324 words, an hour before
    its training ended): half of the ends are within 0.11 heights of the true ones and a tenth
    further off than 0.35, tops and bottoms spread by 0.1, angles by 7 degrees.
    """
    tl, tr, br, bl = quad
    across, down = (tr - tl + br - bl) / 2, (bl - tl + br - tr) / 2
    width = max(float(np.linalg.norm(across)), 1.0)
    height = max(float(np.linalg.norm(down)), 1.0)
    ex, ey = across / width, down / height
    far = rng.random(2) < 0.2
    ends = np.where(
        far,
        np.clip(rng.normal(0.1, 0.3, 2), -0.35, 0.7),
        np.clip(rng.normal(0.02, 0.13, 2), -0.25, 0.4),
    )
    ends = ends * strength * height
    sides = np.clip(rng.normal(-0.01, 0.09, 2), -0.22, 0.25) * strength * height
    moved = np.stack(
        [
            tl - ex * ends[0] - ey * sides[0],
            tr + ex * ends[1] - ey * sides[0],
            br + ex * ends[1] + ey * sides[1],
            bl - ex * ends[0] + ey * sides[1],
        ]
    )
    # Long words leave a turned quad sooner: the ends stay within about half the height.
    spread = min(5.0, float(np.degrees(np.arctan(0.25 * height / width))))
    angle = np.radians(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)) * strength
    c, s = np.cos(angle), np.sin(angle)
    centre = moved.mean(0)
    turned = (moved - centre) @ np.array([[c, s], [-s, c]]) + centre
    turned += rng.normal(0, 0.015 * strength, (4, 2)) * height
    return np.asarray(turned, np.float32)


def rescale(crop: Word, factor: float) -> Crop:
    """Resize a crop: averaged when it shrinks, bicubic or bilinear when it grows."""
    h, w = crop.image.shape[:2]
    size = (max(2, round(w * factor)), max(2, round(h * factor)))
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(crop.image, size, interpolation=mode)
    quad = crop.quad * np.array([size[0] / w, size[1] / h], np.float32)
    return Crop(image, quad.astype(np.float32), crop.text)


def change_light(rng: np.random.Generator, image: Image, strength: float = 1.0) -> Image:
    """Contrast, brightness, gamma, colour, polarity, noise, blur and JPEG, each now and then."""
    if rng.random() < 0.6:
        ramp = np.arange(256, dtype=np.float32) / 255
        luts = np.empty((256, 3), np.float32)
        gain = 1 + rng.uniform(-0.5, 0.3) * strength
        gamma = np.exp(rng.normal(0, 0.25) * strength)
        for channel in range(3):
            tint = 1 + rng.normal(0, 0.08) * strength
            shift = rng.normal(0, 0.06) * strength
            luts[:, channel] = ((ramp**gamma - 0.5) * gain * tint + 0.5 + shift) * 255
        if rng.random() < 0.15:
            luts = 255 - luts
        if rng.random() < 0.1:
            luts = luts[:, rng.permutation(3)]
        image = cv2.LUT(image, np.clip(luts, 0, 255).astype(np.uint8).reshape(256, 1, 3))
    if rng.random() < 0.3 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    elif rng.random() < 0.1 * strength:
        length, angle = float(rng.uniform(1.5, 4.0)), float(rng.uniform(0, np.pi))
        image = motion_blur(image, length, angle)
    if rng.random() < 0.3 * strength:
        sigma = rng.uniform(2, 12)
        cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's noise comes from its own generator
        noise = cv2.randn(np.empty(image.shape, np.int16), 0, sigma)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.3 * strength:
        quality = int(rng.integers(25, 90))
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok:
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


def real_example(rng: np.random.Generator, crop: Crop, strength: float) -> tuple[Image, Floats]:
    """One distorted view of a real crop: pixels [56, 224, 3], shape codes [2]."""
    height = quad_height(crop.quad)
    factor = float(np.exp(rng.normal(0.0, 0.25)))
    if crop.sharp and rng.random() < 0.5:
        # As the photos are stored (960x640 of 1280x720), then as the detector sees them.
        crop = rescale(crop, 0.75)
        factor /= 0.75
    elif height > 20 and rng.random() < 0.4:  # as from further away: most words of photos are small
        factor = float(rng.uniform(9, 20)) / height
    factor = max(factor, 8 / max(height, 1.0)) if height * factor < 8 else factor
    view = rescale(crop, factor) if abs(factor - 1) > 0.03 else crop
    image = change_light(rng, view.image, strength)
    quad = view.quad.astype(np.float32)
    if rng.random() < 0.25:  # stretched or sheared a little, as another face would be
        h = quad_height(quad)
        skew = np.float32(rng.normal(0, 0.12) * h)
        along = (quad[1] - quad[0]) / max(float(np.linalg.norm(quad[1] - quad[0])), 1.0)
        quad = quad + np.stack([along, along, -along, -along]).astype(np.float32) * (skew / 2)
    wave = Wave.draw(rng, strength) if rng.random() < 0.5 else None
    return cut(image, jitter_quad(rng, np.asarray(quad, np.float32), strength), wave)


def rendered_example(rng: np.random.Generator, word: Word, strength: float) -> tuple[Image, Floats]:
    """One distorted view of a rendered word, gentler in its light: the renderer did that."""
    factor = float(np.exp(rng.normal(0, 0.15)))
    if quad_height(word.quad) * factor >= 8 and rng.random() < 0.5:
        word = rescale(word, factor)
    image = change_light(rng, word.image, 0.5 * strength)
    wave = Wave.draw(rng, strength) if rng.random() < 0.3 else None
    return cut(image, jitter_quad(rng, word.quad, strength), wave)
