"""Rectification: rotation undone, levels chosen, images kept apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.reader.augmentation import SHIFTS, SHORTER, Augmentation
from jobs.training.reader.cutting import cut
from jobs.training.refiner import rectification


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def to_map(*images: np.ndarray) -> torch.Tensor:
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return rectification.Stem()(batch)


def box(x: float, y: float, w: float, h: float) -> np.ndarray:
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)


def rectify_one(image: np.ndarray, quad: np.ndarray) -> torch.Tensor:
    return rectification.rectify(
        to_map(image), torch.from_numpy(quad)[None], torch.zeros(1).long()
    )[0]


@pytest.mark.parametrize("angle", [-150.0, -90.0, -30.0, 12.0, 90.0, 180.0])
@pytest.mark.parametrize("size", [(120, 24), (200, 100), (30, 60)])
def test_rectify_undoes_rotation(angle: float, size: tuple[int, int]) -> None:
    image = smooth_image(512, 512)
    quad = box(256 - size[0] / 2, 256 - size[1] / 2, *size)
    turn = cv2.getRotationMatrix2D((255.5, 255.5), angle, 1.0)
    turned = cv2.warpAffine(image, turn, (512, 512), flags=cv2.INTER_CUBIC)
    # Pixel centres lie at halves here, at whole numbers in OpenCV.
    turned_quad = ((quad - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5).astype(np.float32)
    upright, rotated = rectify_one(image, quad), rectify_one(turned, turned_quad)
    assert float((upright - rotated).abs().mean()) < 3.0
    # The comparison means something: another corner first gives another patch.
    other = rectify_one(turned, np.roll(turned_quad, 2, 0))
    assert float((upright - other)[:3].abs().mean()) > 15.0


def test_rectify_reads_the_named_image_and_does_not_mix_levels() -> None:
    black = np.zeros((64, 128, 3), np.uint8)
    white = np.full((64, 128, 3), 255, np.uint8)
    quads = torch.from_numpy(np.stack([box(0, 0, 128, 64), box(0, 0, 20, 10), box(90, 50, 60, 30)]))
    for index, value in ((torch.tensor([0, 0, 0]), 0.0), (torch.tensor([1, 1, 1]), 255.0)):
        pixels = rectification.rectify(to_map(black, white), quads, index)[:, :3]
        assert float((pixels - value).abs().max()) < 0.01


@pytest.mark.parametrize("height", [10, 60, 80, 160, 300, 600])
def test_rectify_averages_tall_words(height: int) -> None:
    # One-pixel stripes: where rows lie far apart, plain bilinear sampling would alias to 0 or 255.
    image = np.zeros((640, 1280, 3), np.uint8)
    image[::2] = 255
    pixels = rectify_one(image, box(20, 10, 1200, height))[:3]
    if height >= 80:
        assert float((pixels - 127.5).abs().max()) < 2.0
    else:
        assert float(pixels.max() - pixels.min()) > 100


def test_rectify_agrees_with_opencv_cut() -> None:
    image = smooth_image(192, 320)
    for quad in (box(30, 40, 90, 20), box(10, 20, 280, 150)):
        quad = quad + np.array([[0, 3], [2, 0], [0, -2], [1, 4]], np.float32)
        ours, (theirs, codes) = rectify_one(image, quad), cut(image, quad)
        assert float((ours[:3].permute(1, 2, 0) - torch.from_numpy(theirs)).abs().max()) < 5.0
        plane = rectification.shape_plane(torch.from_numpy(codes)[None])[0]
        assert torch.allclose(ours[3:], plane, atol=1e-3)


def test_no_words_give_no_rows() -> None:
    features = rectification.text_features(
        to_map(smooth_image(64, 128)), torch.zeros(0, 4, 2), torch.zeros(0).long()
    )
    assert features.shape == (0, 64, 28, 28)


@pytest.mark.parametrize("size", [(60, 24), (110, 24), (22, 24)])
def test_augmentation_cuts_the_word_a_little_lower_and_a_little_higher(
    size: tuple[int, int],
) -> None:
    """As if the detector had given another quad: the patch's own margins are enough for it."""
    image = cv2.GaussianBlur(smooth_image(192, 320), (0, 0), 4)
    quad = torch.from_numpy(box(100, 80, *size))
    stem_map, first = to_map(image), torch.zeros(1).long()
    features = rectification.text_features(stem_map, quad[None], first)
    cuts = Augmentation()(features)
    assert cuts.shape == (len(SHIFTS), 64, 28, 28)
    height = size[1]
    for made, shift in zip(cuts, SHIFTS, strict=True):
        ends = torch.tensor([[1, 0], [-1, 0], [-1, 0], [1, 0]]) * SHORTER * height
        moved = quad + ends + torch.tensor([0, shift * height])
        wanted = rectification.text_features(stem_map, moved[None], first)[0]
        made, wanted = made.reshape(4, 56, 224), wanted.reshape(4, 56, 224)
        assert float((made[3] - wanted[3]).abs().max()) < 0.1, "the shape that the reader is told"
        differences = (made[:3] - wanted[:3]).abs().mean((0, 2))
        # the last rows lie beyond the patch, whose edge is repeated there
        inside = differences[:-3] if shift > 0 else differences[3:]
        assert float(inside.max()) < 2.0
        unmoved = (features.reshape(4, 56, 224)[:3] - wanted[:3]).abs().mean()
        assert float(unmoved) > 3 * float(inside.mean())
