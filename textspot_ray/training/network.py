# mypy: disable-error-code="misc,untyped-decorator"
"""The reader of the embedded bundle: rectification, encoder and attention decoder.

The composite contract fixes shapes only: 64x28x28 features a word in, 256x28x28 out, one decoder
step over [1, 784, 256]. What this reader puts into them:

* ``text_features`` are *pixels*: the word's oriented quad, laid upright into 4 planes of 56 rows
  and 224 columns (B, G, R and a plane that tells the quad's shape); 4*56*224 = 64*28*28, so the
  tensor of the contract is a plain row-major view. Sampling pixels and not features keeps the
  reader free of the detector's weights, needs no gradient through the sampler, and shows the first
  convolution upright letters of one size.
* The encoder's 784 positions are 14 equal rows of 56 columns; the decoder looks at the first row.
* Keys of the attention are the first ``KEY_CHANNELS`` of the 256 channels, so no step-independent
  projection is left in the decoder's step; the next ``N_CTC`` channels are per-column symbol
  posteriors (CTC: blank, then the alphabet), which give the attention decoder something legible to
  look at from the first minutes of training.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
SOS = 0
EOS = 1
N_SYMBOLS = len(ALPHABET) + 2
N_CTC = len(ALPHABET) + 1  # 0 is CTC's blank, symbol i + 1 is ALPHABET[i]
MAX_SYMBOLS = 28

PATCH_HEIGHT = 56
PATCH_WIDTH = 224
PATCH_PLANES = 4
COLUMNS = 56
ROWS = 14
CHANNELS = 256
KEY_CHANNELS = 64

# The quad grows by these shares of its height before it is sampled, so that a box that is a little
# tight or shifted still shows whole letters.
MARGIN_Y = 0.12
MARGIN_X = 0.20
MAX_MARGIN_X = 0.5  # share of the width
# Rows at most this many map pixels apart, else the next coarser level is sampled.
MAX_ROW_STEP = 1.5
LEVEL_STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class PatchShape:
    """How a word is laid into a patch of pixels.

    Attributes:
        height: rows.
        width: columns.
        margin_x: what is seen beyond either end, share of the word's height.
        margin_y: what is seen above and below, the same.
        max_margin: bound of the margin at the ends, share of the word's width.
    """

    height: int
    width: int
    margin_x: float
    margin_y: float
    max_margin: float


READER_PATCH = PatchShape(PATCH_HEIGHT, PATCH_WIDTH, MARGIN_X, MARGIN_Y, MAX_MARGIN_X)


class Stem(nn.Module):
    """Packs an image and its averaged copies into one map that a single GridSample can read.

    No weights. Level 0 (the image itself) lies at the top; the copies at strides 2, 4 and 8 lie
    side by side below it: [B, 3, H, W] -> [B, 3, H + H/2, W] for H and W divisible by 8.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Build the packed pyramid.

        Args:
            image: [B, 3, H, W], BGR, 0..255; H and W divisible by 8.

        Returns:
            [B, 3, H + H/2, W], same range.
        """
        height, width = image.shape[2], image.shape[3]
        below = []
        level = image
        for _ in LEVEL_STRIDES[1:]:
            level = F.avg_pool2d(level, 2)
            below.append(F.pad(level, (0, 0, 0, height // 2 - level.shape[2])))
        strip = torch.cat(below, 3)
        strip = F.pad(strip, (0, width - strip.shape[3]))
        return torch.cat((image, strip), 2)


def sampling_grid(quads: Tensor, map_height: int, map_width: int) -> tuple[Tensor, Tensor]:
    """Where each of a word's 56 x 224 pixels lies in the packed pyramid.

    Args:
        quads: [K, 4, 2] corners (x, y) in input pixels, clockwise from the text's top left. Pixel
            centres lie at halves (the corner of the first pixel is 0, 0).
        map_height: height of the packed pyramid, 3/2 of the image's.
        map_width: its width, the image's.

    Returns:
        Points [K, 56, 224, 2] (x, y) in pyramid pixels (centres at halves), and shape codes [K, 2]:
        log2 of width / height and log2 of height / 16 px of the quad.
    """
    image_height = map_height * 2 // 3
    quads = quads.float()
    top_left, top_right, bottom_right, bottom_left = quads.unbind(1)
    across = ((top_right - top_left) + (bottom_right - bottom_left)) / 2
    down = ((bottom_left - top_left) + (bottom_right - top_right)) / 2
    width = across.square().sum(1).sqrt().clamp(min=1.0)  # [K], px
    height = down.square().sum(1).sqrt().clamp(min=1.0)
    rows = (torch.arange(PATCH_HEIGHT, device=quads.device) + 0.5) / PATCH_HEIGHT
    cols = (torch.arange(PATCH_WIDTH, device=quads.device) + 0.5) / PATCH_WIDTH
    v = (rows * (1 + 2 * MARGIN_Y) - MARGIN_Y).view(1, -1, 1, 1)
    margin = (MARGIN_X * height / width).clamp(max=MAX_MARGIN_X).view(-1, 1, 1, 1)
    u = cols.view(1, 1, -1, 1) * (1 + 2 * margin) - margin

    def corner(c: Tensor) -> Tensor:
        return c.view(-1, 1, 1, 2)

    upper = corner(top_left) * (1 - u) + corner(top_right) * u
    lower = corner(bottom_left) * (1 - u) + corner(bottom_right) * u
    points = upper * (1 - v) + lower * v  # [K, 56, 224, 2]

    # Coarser levels for taller words: level n is read where rows would lie too far apart on n - 1.
    step = height * ((1 + 2 * MARGIN_Y) / PATCH_HEIGHT / MAX_ROW_STEP)
    stride = torch.ones_like(height)
    left = torch.zeros_like(height)
    for i, n in enumerate(LEVEL_STRIDES[1:], 1):
        taller = (step > LEVEL_STRIDES[i - 1]).float()
        stride = stride + taller * (n - LEVEL_STRIDES[i - 1])
        if i > 1:
            left = left + taller * (map_width / LEVEL_STRIDES[i - 1])
    coarse = (stride > 1).float()
    stride, left, coarse = (t.view(-1, 1, 1) for t in (stride, left, coarse))
    x, y = points.unbind(3)
    # Stay half a level pixel inside: the edge is repeated, and neighbouring levels never mix.
    x = torch.minimum((x / stride).clamp(min=0.5), map_width / stride - 0.5) + left
    y = torch.minimum((y / stride).clamp(min=0.5), image_height / stride - 0.5)
    y = y + coarse * image_height
    codes = torch.stack((torch.log2(width / height), torch.log2(height / 16)), 1)
    return torch.stack((x, y), 3), codes


def rectify(stem_map: Tensor, quads: Tensor, batch_index: Tensor) -> Tensor:
    """Lay words upright, left to right, into patches of 56 x 224 pixels.

    One bilinear GridSample (align_corners=False) for all words, which torch and OpenVINO compute
    alike. The quad's four corners are blended bilinearly (exact for parallelograms).

    Args:
        stem_map: [B, 3, 3H/2, W] packed pyramid of :class:`Stem`.
        quads: [K, 4, 2] corners in input pixels, clockwise from the text's top left.
        batch_index: [K] the image of each word.

    Returns:
        [K, 4, 56, 224]: B, G, R (0..255) and a plane that is constant within its upper half (code
        of width / height) and its lower half (code of height), mapped to about 0..255.
    """
    batch, planes, map_height, map_width = stem_map.shape
    points, codes = sampling_grid(quads, map_height, map_width)
    n = points.shape[0]
    x, y = points.unbind(3)
    if batch > 1:
        stem_map = stem_map.transpose(0, 1).reshape(1, planes, batch * map_height, map_width)
        y = y + batch_index.view(-1, 1, 1) * map_height
    grid = torch.stack((x * (2 / map_width) - 1, y * (2 / (batch * map_height)) - 1), 3)
    grid = grid.view(1, n * PATCH_HEIGHT, PATCH_WIDTH, 2)
    pixels = F.grid_sample(stem_map, grid, mode="bilinear", align_corners=False)
    pixels = pixels.view(planes, n, PATCH_HEIGHT, PATCH_WIDTH).transpose(0, 1)
    return torch.cat((pixels, shape_plane(codes)), 1)


def shape_plane(codes: Tensor) -> Tensor:
    """The fourth plane of a patch: [K, 2] shape codes -> [K, 1, 56, 224], about 0..255."""
    values = (codes * 32 + 96).clamp(0, 255).view(-1, 1, 2, 1, 1)
    n = codes.shape[0]
    values = values.expand(n, 1, 2, PATCH_HEIGHT // 2, PATCH_WIDTH)
    return values.reshape(n, 1, PATCH_HEIGHT, PATCH_WIDTH)


def text_features(stem_map: Tensor, quads: Tensor, batch_index: Tensor) -> Tensor:
    """:func:`rectify`, viewed as the contract's ``text_features`` [K, 64, 28, 28]."""
    return rectify(stem_map, quads, batch_index).reshape(-1, 64, 28, 28)


def _conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    """Convolution, batch norm (folded at export), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """x + relu(bn(conv(x)))."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.body(x))


@dataclass(frozen=True, slots=True)
class ReaderSize:
    """Widths and depths of the reader; stored beside its weights.

    Attributes:
        widths: channels after each of the five height-reducing convolutions
            (56x224 -> 28x112 -> 14x56 -> 7x56 -> 4x56 -> 1x56).
        tall_blocks: residual 3x3 blocks at 7x56.
        low_blocks: residual 3x3 blocks at 4x56.
        dilations: one residual 1x3 block over the 56 columns for each.
        hidden: values of the decoder's state, fixed by the contract.
    """

    widths: tuple[int, int, int, int, int] = (32, 64, 96, 128, 192)
    tall_blocks: int = 1
    low_blocks: int = 0
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4)
    hidden: int = 256

    def to_dict(self) -> dict[str, list[int]]:
        """As lists of whole numbers, for storing."""
        return {f.name: np.atleast_1d(getattr(self, f.name)).tolist() for f in fields(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, list[int]]) -> ReaderSize:
        """Back from :meth:`to_dict`."""
        return cls(
            widths=cast("tuple[int, int, int, int, int]", tuple(stored["widths"])),
            tall_blocks=stored["tall_blocks"][0],
            low_blocks=stored["low_blocks"][0],
            dilations=tuple(stored["dilations"]),
            hidden=stored["hidden"][0],
        )


class Encoder(nn.Module):
    """Patch of a word -> 56 columns of 256 channels (at most 0.15 GMAC a word).

    Attributes:
        size: widths and depths.
    """

    def __init__(self, size: ReaderSize | None = None) -> None:
        super().__init__()
        self.size = size = size or ReaderSize()
        c1, c2, c3, c4, c5 = size.widths
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = _conv(3, c1, stride=(2, 2))
        layers["conv2"] = _conv(c1, c2, stride=(2, 2))
        layers["conv3"] = _conv(c2, c3, stride=(2, 1))
        for i in range(size.tall_blocks):
            layers[f"tall{i}"] = _Residual(_conv(c3, c3))
        layers["conv4"] = _conv(c3, c4, stride=(2, 1))
        for i in range(size.low_blocks):
            layers[f"low{i}"] = _Residual(_conv(c4, c4))
        layers["conv5"] = _conv(c4, c5, (4, 1), padding=(0, 0))
        self.trunk = nn.Sequential(layers)
        self.shape_bias = nn.Linear(2, c5)
        self.context = nn.Sequential(
            *(
                _Residual(_conv(c5, c5, (1, 3), padding=(0, d), dilation=(1, d)))
                for d in size.dilations
            )
        )
        self.dropout = nn.Dropout(0.1)
        self.ctc = nn.Linear(c5, N_CTC)
        self.keys = nn.Linear(c5, KEY_CHANNELS)
        self.position = nn.Parameter(torch.randn(COLUMNS, KEY_CHANNELS) * 0.1)
        self.values = nn.Linear(c5, CHANNELS - KEY_CHANNELS - N_CTC)

    def columns(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Encode patches, as training uses it.

        Args:
            patches: [K, 4, 56, 224] of :func:`rectify`.

        Returns:
            Columns [K, 56, 256] and CTC logits [K, 56, 37] (0 = blank).
        """
        pixels = patches[:, :3]
        codes = (patches[:, 3, :: PATCH_HEIGHT - 1, 0] - 96) / 64  # [K, 2]
        # Colour cast, brightness and contrast out: each channel's mean, one spread for the word.
        pixels = pixels - pixels.mean((2, 3), keepdim=True)
        spread = pixels.square().mean((1, 2, 3), keepdim=True).add(4.0).sqrt()
        x = self.trunk(pixels / spread)  # [K, C, 1, 56]
        x = x + self.shape_bias(codes).unsqueeze(2).unsqueeze(3)
        x = self.context(x)
        x = self.dropout(x.squeeze(2).transpose(1, 2))  # [K, 56, C]
        ctc = self.ctc(x)
        keys = self.keys(x) + self.position
        out = torch.cat((keys, ctc.softmax(2), self.values(x).relu()), 2)
        return out, ctc

    def forward(self, features: Tensor) -> Tensor:
        """The contract's encoder.

        Args:
            features: [K, 64, 28, 28], the row-major view of [K, 4, 56, 224].

        Returns:
            [K, 256, 28, 28]: position y * 28 + x is column (y * 28 + x) mod 56.
        """
        patches = features.reshape(-1, PATCH_PLANES, PATCH_HEIGHT, PATCH_WIDTH)
        out, _ = self.columns(patches)
        rows = out.transpose(1, 2).unsqueeze(2).expand(-1, CHANNELS, ROWS, COLUMNS)
        return rows.reshape(-1, CHANNELS, 28, 28)


class Decoder(nn.Module):
    """One step of the attention GRU (at most 2.5 MMAC).

    With h_i the columns, k_i their first 64 channels, s the state and y the previous symbol:
    q = W_q [s; E y]; u_i = v . tanh(k_i + q); c = sum_i softmax(u)_i h_i; s' = GRU([E y; c], s);
    logits = W_o [s'; c]. The GRU applies its reset after the recurrent product.
    """

    EMBEDDING = 64

    def __init__(self, size: ReaderSize | None = None) -> None:
        super().__init__()
        hidden = (size or ReaderSize()).hidden
        self.hidden = hidden
        self.embedding = nn.Embedding(N_SYMBOLS, self.EMBEDDING)
        self.query = nn.Linear(hidden + self.EMBEDDING, KEY_CHANNELS)
        self.energy = nn.Linear(KEY_CHANNELS, 1, bias=False)
        self.from_input = nn.Linear(self.EMBEDDING + CHANNELS, 3 * hidden)
        self.from_state = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden + CHANNELS, N_SYMBOLS)

    def step(self, columns: Tensor, symbol: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step over [K, 56, 256] columns; symbol [K], state [K, 256] -> logits, next state."""
        embedded = self.embedding(symbol)
        query = self.query(torch.cat((state, embedded), 1))
        energy = self.energy(torch.tanh(columns[:, :, :KEY_CHANNELS] + query.unsqueeze(1)))
        weights = energy.squeeze(2).softmax(1)
        context = torch.bmm(weights.unsqueeze(1), columns).squeeze(1)
        ir, iz, inew = self.from_input(torch.cat((embedded, context), 1)).chunk(3, 1)
        hr, hz, hnew = self.from_state(state).chunk(3, 1)
        reset = torch.sigmoid(ir + hr)
        keep = torch.sigmoid(iz + hz)
        fresh = torch.tanh(inew + reset * hnew)
        state = fresh + keep * (state - fresh)
        return self.output(torch.cat((state, context), 1)), state

    def forward(
        self, encoder_outputs: Tensor, prev_symbol: Tensor, prev_hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The contract's decoder.

        Args:
            encoder_outputs: [K, 784, 256].
            prev_symbol: [K] symbol of the step before, 0 (start) at first.
            prev_hidden: [1, K, 256] state, zeros at first.

        Returns:
            Logits [K, 38] and the next state [1, K, 256].
        """
        columns = encoder_outputs[:, :COLUMNS]
        logits, state = self.step(columns, prev_symbol.long(), prev_hidden[0])
        return logits, state.unsqueeze(0)

    def teach(self, columns: Tensor, symbols: Tensor) -> Tensor:
        """Teacher forcing.

        Args:
            columns: [K, 56, 256].
            symbols: [K, L] inputs of the steps, starting with SOS.

        Returns:
            Logits [K, L, 38].
        """
        state = columns.new_zeros(columns.shape[0], self.hidden)
        steps = []
        for symbol in symbols.unbind(1):
            logits, state = self.step(columns, symbol, state)
            steps.append(logits)
        return torch.stack(steps, 1)

    @torch.no_grad()
    def greedy(self, columns: Tensor, max_symbols: int = MAX_SYMBOLS) -> list[tuple[str, float]]:
        """Read words by the published rule.

        At most ``max_symbols`` steps; argmax; the confidence is the product of every step's
        softmax, the end symbol's included; a start symbol in mid-word is kept as a space.

        Args:
            columns: [K, 56, 256].
            max_symbols: steps at most.

        Returns:
            Text and confidence of each word.
        """
        k = columns.shape[0]
        state = columns.new_zeros(k, self.hidden)
        symbol = torch.full((k,), SOS, dtype=torch.long, device=columns.device)
        confidence = columns.new_ones(k)
        alive = torch.ones(k, dtype=torch.bool, device=columns.device)
        read: list[Tensor] = []
        for _ in range(max_symbols):
            logits, state = self.step(columns, symbol, state)
            best, symbol = logits.softmax(1).max(1)
            confidence = torch.where(alive, confidence * best, confidence)
            alive = alive & (symbol != EOS)
            if not bool(alive.any()):
                break
            read.append(torch.where(alive, symbol, torch.full_like(symbol, EOS)))
        texts = [""] * k
        if read:
            for i, row in enumerate(torch.stack(read, 1).tolist()):
                texts[i] = "".join(" " if s == SOS else ALPHABET[s - 2] for s in row if s != EOS)
        return list(zip(texts, confidence.tolist(), strict=True))


def read_ctc(logits: Tensor) -> list[str]:
    """Greedy CTC: [K, 56, 37] logits -> texts (repeats merged, blanks dropped)."""
    texts = []
    for row in logits.argmax(2).tolist():
        kept = [s for s, before in zip(row, [0, *row[:-1]], strict=True) if s and s != before]
        texts.append("".join(ALPHABET[s - 1] for s in kept))
    return texts


def save_reader(path: Path, size: ReaderSize, state: dict[str, Tensor]) -> None:
    """Write weights as FP16 in an .npz (no pickle inside).

    Args:
        path: file to write.
        size: widths and depths.
        state: tensors named ``encoder.*`` and ``decoder.*``.
    """
    arrays: dict[str, Any] = {
        k: v.detach().cpu().numpy().astype(np.float16)
        for k, v in state.items()
        if "num_batches" not in k
    }
    arrays |= {f"size.{k}": np.array(v) for k, v in size.to_dict().items()}
    with path.open("wb") as f:
        np.savez_compressed(f, **arrays)


def load_reader(path: Path | str) -> tuple[Stem, Encoder, Decoder]:
    """Read weights written by :func:`save_reader`; modules are in eval mode, float32.

    Args:
        path: the .npz.

    Returns:
        Stem, encoder, decoder.
    """
    with np.load(path, allow_pickle=False) as data:
        arrays = {k: data[k] for k in data.files}
    prefix = "size."
    size = ReaderSize.from_dict(
        {k.removeprefix(prefix): v.tolist() for k, v in arrays.items() if k.startswith(prefix)}
    )
    encoder, decoder = Encoder(size), Decoder(size)
    for name, module in (("encoder.", encoder), ("decoder.", decoder)):
        own = {
            k.removeprefix(name): torch.from_numpy(v.astype(np.float32))
            for k, v in arrays.items()
            if k.startswith(name)
        }
        missing, unexpected = module.load_state_dict(own, strict=False)
        if unexpected or any("num_batches" not in k for k in missing):
            raise ValueError(f"{path}: not a reader's weights ({missing}, {unexpected})")
        module.eval()
    return Stem(), encoder, decoder
