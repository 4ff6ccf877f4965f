"""What light, lens, sensor and file format do to a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def motion_kernel(length_px: float, angle_rad: float) -> NDArray[np.float32]:
    """A line of unit sum, drawn with soft edges."""
    side = 2 * int(np.ceil(length_px / 2)) + 3
    kernel = np.zeros((side, side), np.float32)
    centre = side / 2 - 0.5
    half = np.array([np.cos(angle_rad), np.sin(angle_rad)]) * length_px / 2
    fine = 16
    start = tuple(int(v) for v in np.round((centre - half) * fine))
    end = tuple(int(v) for v in np.round((centre + half) * fine))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def uneven_light(rng: np.random.Generator, image: Pixels, strength: float) -> Pixels:
    """Multiply by a slowly changing light; strength is its relative spread."""
    cells = rng.normal(0, strength, (2, 3)).astype(np.float32)
    height, width = image.shape[:2]
    gain = np.exp(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.asarray((image * gain[:, :, None]).clip(0, 255), dtype=np.uint8)


def exposure(rng: np.random.Generator, image: Pixels, strength: float) -> Pixels:
    """Darken or overexpose, veil, and pale the colours, as dim rooms and cheap lenses do."""
    gain = float(np.exp(rng.normal(-0.18, 0.35) * strength))
    veil = float(rng.exponential(14.0)) * strength
    pale = float(rng.beta(1.0, 5.0)) * strength
    tint = rng.normal(0, 5.0 * strength, 3)
    # Mixing each colour towards its own grey is one 3x4 matrix with gain and veil.
    mix = (1 - pale) * np.eye(3) + pale * np.array([0.114, 0.587, 0.299])
    matrix = np.column_stack([gain * mix, veil + tint])
    return np.asarray(cv2.transform(image, matrix), dtype=np.uint8)


def glare(rng: np.random.Generator, image: Pixels, strength: float) -> Pixels:
    """Lay a soft bright spot or streak over the picture."""
    height, width = image.shape[:2]
    spot = np.zeros((max(2, height // 4), max(2, width // 4)), np.float32)
    rows, columns = spot.shape
    centre = (int(rng.uniform(0, columns)), int(rng.uniform(0, rows)))
    axes = (
        max(1, int(rng.uniform(0.1, 0.6) * columns)),
        max(1, int(rng.uniform(0.1, 0.6) * rows)),
    )
    cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    spot = cv2.GaussianBlur(spot, (0, 0), max(0.8, 0.2 * min(rows, columns)))
    spot = cv2.resize(spot, (width, height), interpolation=cv2.INTER_LINEAR) * strength
    lit = image + (255.0 - image) * spot[:, :, None]
    return np.asarray(lit.clip(0, 255), dtype=np.uint8)


def lens_blur(image: Pixels, sigma_px: float) -> Pixels:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), dtype=np.uint8)


def motion_blur(image: Pixels, length_px: float, angle_rad: float) -> Pixels:
    """Blur along a line."""
    kernel = motion_kernel(length_px, angle_rad)
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8)


def resample(image: Pixels, scale: float, smooth: bool) -> Pixels:
    """Shrink by scale < 1 and enlarge again: the detail of a smaller picture."""
    height, width = image.shape[:2]
    small = (max(4, round(width * scale)), max(4, round(height * scale)))
    less = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(less, (width, height), interpolation=how), dtype=np.uint8)


def sensor_noise(rng: np.random.Generator, image: Pixels, sigma: float) -> Pixels:
    """Add Gaussian noise, grainy or in blotches as after a camera's own smoothing."""
    height, width = image.shape[:2]
    noise = np.empty((height, width, 3), np.int16)
    cv2.setRNGSeed(int(rng.integers(1, 2**31 - 1)))
    cv2.randn(noise, (0, 0, 0), (sigma, sigma, sigma))
    if rng.random() < 0.4:
        noise = cv2.blur(noise * 2, (2, 2))
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def sharpen(image: Pixels, amount: float) -> Pixels:
    """Unsharp mask, as cameras apply it: bright and dark seams along edges."""
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    return np.asarray(cv2.addWeighted(image, 1.0 + amount, soft, -amount, 0.0), dtype=np.uint8)


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Encode and decode as JPEG."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode an image of shape {image.shape}")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def photograph(
    rng: np.random.Generator, image: Pixels, difficulty: float, text_px: float
) -> Pixels:
    """Everything between the scene and the file, as strong as the difficulty says.

    Blur is bounded by the text's height, so that words stay (just) readable.

    Args:
        rng: Where chance comes from.
        image: BGR.
        difficulty: 0 changes nothing, 1 is the worst of a hand-held phone camera.
        text_px: Height of the smallest text that has to stay readable.
    """
    d = difficulty
    if d <= 0.02:
        return image
    if rng.random() < 0.6 * d:
        image = exposure(rng, image, d)
    if rng.random() < 0.4 * d:
        image = uneven_light(rng, image, 0.25 * d)
    if rng.random() < 0.06 * d:
        image = glare(rng, image, float(rng.uniform(0.2, 0.7)))
    if rng.random() < 0.2 + 0.7 * d:
        most = max(0.55, min(0.4 + 1.6 * d, 0.045 * text_px))
        image = lens_blur(image, float(rng.uniform(0.3, most)))
    if rng.random() < 0.18 * d:
        most = max(1.3, min(7.0 * d, 0.2 * text_px))
        image = motion_blur(image, float(rng.uniform(1.0, most)), float(rng.uniform(0, np.pi)))
    if rng.random() < 0.65 * d:
        least = min(0.9, max(0.55, 8.0 / text_px))
        image = resample(image, float(rng.uniform(least, 0.97)), rng.random() < 0.4)
    if rng.random() < 0.35 * d:
        image = sharpen(image, float(rng.uniform(0.2, 1.2)))
    if rng.random() < 0.5 * d:
        image = sensor_noise(rng, image, float(rng.uniform(0.5, 1.0 + 5 * d * rng.random())))
    if rng.random() < 0.2 + 0.6 * d:
        image = jpeg(image, int(rng.uniform(95 - 55 * d * rng.random(), 97)))
    return image
