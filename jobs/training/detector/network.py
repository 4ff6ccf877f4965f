# mypy: disable-error-code="misc"
"""The embedded bundle's word detector: one stage, EAST-like, made for CPUs.

Per pixel at stride 4 it says whether the pixel lies in a word's core, how far the word's four sides
are in the word's own frame, and which way the text runs (Zhou et al. 2017, EAST; the orientation
is a full-circle unit vector here, so that text turned by 90 or 180 degrees keeps its reading
direction). What becomes of these maps is :mod:`jobs.training.detector.selection`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE_PX = 4
# A picture's own pixels are shown this much larger where its size leaves the choice (tiles): small
# words are what the trunk misses, and on every second one of photos 801-900 the same weights found
# 5.3 points of F1 more that way.
ENLARGEMENT = 1.25
# Width and height of what the bundle's detector takes, of like areas: lying, standing, square. The
# sides are multiples of 160: halves of them, and four fifths, still divide by the trunk's 32.
INPUT_SHAPES = ((1600, 960), (960, 1600), (1280, 1280))
# A picture of nearly the input's aspect fills it: 3:2 is stretched by a ninth. On photos 801-900,
# which are 3:2, weights trained before had 59.0 % of word spotting without and 61.1 with it.
MAX_STRETCH = 1.12
MAP_CHANNELS = 8  # score logit, log distances top right bottom left, cos, sin, gap logit
# Where two words of a line part: learnt beside the others, so that the trunk has to tell words
# apart. Nothing reads it: cutting boxes at these gaps left their F1 as it was.
GAP = 7
GAP_WEIGHT = 0.5
DISTANCE_UNIT_PX = 16.0
MIN_POSITIVES = 50.0  # an image's loss is divided by no less than this; gaps are smaller
MIN_GAP_POSITIVES = 12.5


class _Conv(nn.Sequential):
    """3x3 or 1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )


class _PixelConv(nn.Conv2d):
    """3x3 convolution, stride 2, on raw pixels.

    The pixels' spread (ImageNet's, BGR) divides the weights and their mean is left to BatchNorm, so
    that whole numbers enter, which are exact in bfloat16 and in 8 bits.
    """

    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(3, channels, 3, stride=2, padding=1, bias=False)
        spread = torch.tensor([57.375, 57.12, 58.395])
        self.register_buffer("scale", 1 / spread.view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(image, self.weight * self.scale, stride=self.stride, padding=self.padding)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class DetectorTrunk(nn.Module):
    """Image to the raw maps at stride 4.

    Strides 2, 4, 8, 16, 32 with 16, 32, 64, 128, 128 channels; a top-down path brings context
    back to stride 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_PixelConv(16), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.s4 = nn.Sequential(_Conv(16, 32, stride=2), _Conv(32, 32))
        self.s8 = nn.Sequential(_Conv(32, 64, stride=2), _Residual(64))
        self.s16 = nn.Sequential(_Conv(64, 128, stride=2), _Residual(128), _Residual(128))
        self.s32 = nn.Sequential(_Conv(128, 128, stride=2), _Residual(128), _Residual(128))
        self.lateral32 = _Conv(128, 80, 1)
        self.lateral16 = _Conv(128, 80, 1)
        self.merge16 = _Conv(80, 80)
        self.lateral8 = _Conv(64, 64, 1)
        self.down16 = _Conv(80, 64, 1)
        self.merge8 = _Conv(64, 64)
        self.lateral4 = _Conv(32, 32, 1)
        self.down8 = _Conv(64, 32, 1)
        self.merge4 = _Conv(32, 32)
        self.head = nn.Conv2d(32, MAP_CHANNELS, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.bias[0] = -3.0
            self.head.bias[5] = 1.0
            self.head.bias[GAP] = -3.0

    def forward(self, image: Tensor) -> Tensor:
        """Map an image [B, 3, H, W] (BGR, 0..255; H, W multiples of 32) to [B, 8, H/4, W/4]."""
        x = self.stem(image)
        c4 = self.s4(x)
        c8 = self.s8(c4)
        c16 = self.s16(c8)
        c32 = self.s32(c16)
        p16 = self.merge16(self.lateral16(c16) + _double(self.lateral32(c32)))
        p8 = self.merge8(self.lateral8(c8) + _double(self.down16(p16)))
        p4 = self.merge4(self.lateral4(c4) + _double(self.down8(p8)))
        with torch.autocast(image.device.type, enabled=False):
            out: Tensor = self.head(p4.float())
        return out


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def count_macs(module: nn.Module, image: Tensor) -> int:
    """Count the multiply-accumulates of all convolutions and linear layers in one forward pass."""
    total = 0

    def convolution(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        total += out.numel() * layer.in_channels // layer.groups * kernel

    def linear(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear)
        total += out.numel() * layer.in_features

    hooks = [
        m.register_forward_hook(convolution) for m in module.modules() if isinstance(m, nn.Conv2d)
    ]
    hooks += [m.register_forward_hook(linear) for m in module.modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            module(image)
    finally:
        for hook in hooks:
            hook.remove()
    return total


@dataclass(frozen=True, slots=True)
class DetectorLoss:
    """The loss's parts, each a scalar tensor."""

    score: Tensor
    overlap: Tensor
    angle: Tensor
    gap: Tensor

    @property
    def total(self) -> Tensor:
        """Weighted sum that is minimised."""
        return self.score + self.overlap + 4.0 * self.angle + GAP_WEIGHT * self.gap


def detector_loss(maps: Tensor, target: Tensor) -> DetectorLoss:
    """Compare raw maps [B, 8, h, w] with target maps [B, 11, h, w] (see `target_maps`).

    Score: dice plus cross-entropy over all pixels, per positive; with all negatives in, the score
    stays near a probability (three hard negatives a positive made every score about 0.9).
    Sides: IoU loss in the word's frame (Yu et al. 2016). Direction: 1 - cos of the difference.
    """
    found = _region_loss(maps[:, 0], target[:, 0], target[:, 1], MIN_POSITIVES)
    gap = _region_loss(maps[:, GAP], target[:, 9], target[:, 10], MIN_GAP_POSITIVES)

    geometry = target[:, 8]
    norm = geometry.sum() + 1
    predicted = side_distances(maps)
    wanted_sides = target[:, 2:6]
    t, r, b, left = predicted.unbind(1)
    tt, tr, tb, tl = wanted_sides.unbind(1)
    inter = (torch.minimum(t, tt) + torch.minimum(b, tb)) * (
        torch.minimum(r, tr) + torch.minimum(left, tl)
    )
    union = (t + b) * (r + left) + (tt + tb) * (tr + tl) - inter
    iou_loss = -torch.log((inter + 1) / (union + 1))
    direction = F.normalize(maps[:, 5:7], dim=1, eps=1e-4)
    angle = 1 - (direction * target[:, 6:8]).sum(1)
    return DetectorLoss(
        found, (iou_loss * geometry).sum() / norm, (angle * geometry).sum() / norm, gap
    )


def _region_loss(logit: Tensor, truth: Tensor, weight: Tensor, least: float) -> Tensor:
    """Dice plus cross-entropy per positive, of maps [B, h, w]; `least` positives an image."""
    score = torch.sigmoid(logit)
    overlap = (score * truth * weight).sum()
    dice = 1 - (2 * overlap + 1) / (
        (score * score * weight).sum() + (truth * truth * weight).sum() + 1
    )
    cross = F.binary_cross_entropy_with_logits(logit, truth, reduction="none") * weight
    return dice + cross.sum() / (weight * truth).sum().clamp(min=least * logit.shape[0])


def side_distances(maps: Tensor) -> Tensor:
    """Distances in pixels, [B, 4, h, w], from raw maps."""
    return torch.exp(maps[:, 1:5].clamp(-4.0, 4.0)) * DISTANCE_UNIT_PX
