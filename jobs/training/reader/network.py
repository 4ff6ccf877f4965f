# mypy: disable-error-code="misc,untyped-decorator"
"""The reader of the embedded bundle: encoder and attention decoder.

The composite contract fixes shapes only: 64x28x28 features a word in, 256x28x28 out, one decoder
step over [1, 784, 256]. What this reader puts into them:

* ``text_features`` are upright pixels of the word, see :mod:`jobs.training.refiner.rectification`.
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
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from jobs.training.loop.checkpoints import as_tensors, fill, load_arrays, save_arrays
from jobs.training.refiner.rectification import (
    PATCH_HEIGHT,
    PATCH_PLANES,
    PATCH_WIDTH,
    READER_PATCH,
)
from textspot_ray.errors import UsageError

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
SOS = 0
EOS = 1
N_SYMBOLS = len(ALPHABET) + 2
N_CTC = len(ALPHABET) + 1  # 0 is CTC's blank, symbol i + 1 is ALPHABET[i]
MAX_SYMBOLS = 28

COLUMNS = 56
ROWS = 14
CHANNELS = 256
KEY_CHANNELS = 64
_SIZE = "size."  # of the keys of widths and depths among stored weights


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
            patches: [K, 4, 56, 224] of :func:`rectification.rectify`.

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
    sizes = {_SIZE + name: np.array(values) for name, values in size.to_dict().items()}
    save_arrays(path, state, READER_PATCH.settings(), sizes)


def load_reader(path: Path) -> tuple[Encoder, Decoder]:
    """Read weights written by :func:`save_reader`; modules are in eval mode, float32.

    Args:
        path: the .npz.

    Returns:
        Encoder and decoder.

    Raises:
        UsageError: the file is missing, another network's, or made with another patch.
    """
    arrays = load_arrays(path, READER_PATCH.settings(), "reader")
    stored = {k.removeprefix(_SIZE): v.tolist() for k, v in arrays.items() if k.startswith(_SIZE)}
    if not stored:
        raise UsageError(f"{path}: not a reader's weights; give its reader.npz")
    size = ReaderSize.from_dict(stored)
    encoder, decoder = Encoder(size), Decoder(size)
    for name, module in (("encoder.", encoder), ("decoder.", decoder)):
        own = {k.removeprefix(name): v for k, v in arrays.items() if k.startswith(name)}
        fill(module, as_tensors(own), path)
        module.eval()
    return encoder, decoder
