# mypy: disable-error-code="misc,untyped-decorator"
"""The reader in training: both networks under one roof, and the two losses.

CTC on the encoder's 56 columns finds the letters first; beside it stands the attention decoder's
cross-entropy under teacher forcing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.training.reader import network as net
from jobs.training.reader.batches import Batch
from jobs.training.refiner.rectification import shape_plane

IGNORE = -100


class Reader(nn.Module):
    """Encoder and decoder under one roof, with the training losses."""

    def __init__(self, size: net.ReaderSize) -> None:
        super().__init__()
        self.encoder = net.Encoder(size)
        self.decoder = net.Decoder(size)

    def encode(self, pixels: Tensor, codes: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
        """[K, 56, 224, 3] uint8 and [K, 2] -> columns [K, 56, 256], CTC logits [K, 56, 37]."""
        image = pixels.permute(0, 3, 1, 2).float()
        patches = torch.cat((image, shape_plane(codes)), 1)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            columns, ctc = self.encoder.columns(patches)
        return columns.float(), ctc.float()


def attention_targets(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Inputs and targets of teacher forcing.

    Args:
        texts: K targets of a-z0-9.

    Returns:
        Inputs [K, L] (SOS, then the word) and targets [K, L] (the word, then EOS; -100 where
        nothing is to be learnt), L = longest word + 1.
    """
    length = max(len(t) for t in texts) + 1
    inputs = torch.full((len(texts), length), net.EOS)
    targets = torch.full((len(texts), length), IGNORE)
    for i, text in enumerate(texts):
        symbols = torch.tensor([net.ALPHABET.index(c) + 2 for c in text], dtype=torch.long)
        inputs[i, 0] = net.SOS
        inputs[i, 1 : len(text) + 1] = symbols
        targets[i, : len(text)] = symbols
        targets[i, len(text)] = net.EOS
    return inputs, targets


def ctc_targets(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """CTC labels (1..36) of all words in one row, and each word's length."""
    labels = [net.ALPHABET.index(c) + 1 for text in texts for c in text]
    lengths = [len(t) for t in texts]
    return torch.tensor(labels, dtype=torch.long), torch.tensor(lengths, dtype=torch.long)


def losses(
    reader: Reader, batch: Batch, wrong_symbol: float, device: torch.device, bf16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Both losses of a batch.

    Args:
        reader: in training.
        batch: the examples.
        wrong_symbol: share of the decoder's inputs replaced at random.
        device: where the reader lives.
        bf16: whether the encoder computes in bfloat16.

    Returns:
        CTC loss, attention loss (both a mean over symbols), CTC logits [K, 56, 37].
    """
    pixels = torch.from_numpy(batch.pixels).to(device, non_blocking=True)
    codes = torch.from_numpy(batch.codes).to(device, non_blocking=True)
    columns, ctc = reader.encode(pixels, codes, bf16)
    labels, lengths = ctc_targets(batch.texts)
    n_symbols = float(lengths.sum() + len(batch.texts))
    ctc_loss = (
        F.ctc_loss(
            ctc.log_softmax(2).transpose(0, 1),
            labels.to(device),
            torch.full((len(batch.texts),), net.COLUMNS, dtype=torch.long),
            lengths,
            reduction="sum",
            zero_infinity=True,
        )
        / n_symbols
    )
    inputs, targets = (t.to(device) for t in attention_targets(batch.texts))
    wrong = torch.rand(inputs.shape, device=device) < wrong_symbol
    wrong[:, 0] = False
    noise = torch.randint(2, net.N_SYMBOLS, inputs.shape, device=device)
    logits = reader.decoder.teach(columns, torch.where(wrong, noise, inputs))
    attention_loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    return ctc_loss, attention_loss, ctc
