# mypy: disable-error-code="misc"
"""Batches made by processes ahead of the network, so that a fast device need not wait for them."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

Made = TypeVar("Made")
AHEAD = 4  # batches that each process may be ahead
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 1 << 20


class _Endless(IterableDataset[Any]):
    def __init__(self, make: Callable[[int], Iterator[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self._make(worker.id if worker is not None else 0)


def feed(make: Callable[[int], Iterator[Made]], processes: int) -> Iterator[Made]:
    """Batches of endless sources, one a process; made in line where there are none.

    Args:
        make: Gives the batches of process 0, 1 and so on, each with chance of its own. What it
            holds in memory is shared with the processes, which are forked: OpenCV must have been
            kept from threads of its own before (``cv2.setNumThreads(1)``).
        processes: How many; 0 = in line.
    """
    if not processes:
        return make(0)
    loader: Any = DataLoader(
        _Endless(make),
        batch_size=None,
        num_workers=processes,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
        worker_init_fn=_give_pictures_back,
    )
    return iter(loader)


def _give_pictures_back(_: int) -> None:
    """Have this process return the memory of freed pictures to the system, where glibc is.

    It keeps blocks of up to 32 MB once the first of that size was freed, and with pictures of all
    sizes grows by half a gigabyte a minute. The network's process must not do so: there every
    step frees the same blocks, and took twice as long.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
