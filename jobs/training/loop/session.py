"""One run of a training: how long it goes on, and the signals that end it early."""

from __future__ import annotations

import argparse
import datetime as dt
import signal
import threading
import time
from pathlib import Path
from typing import Any

LAST_ROUND_MINUTES = 0.5  # from the end of the steps to the end of the program, at most


def end_time(text: str) -> float:
    """Seconds since the epoch of ``HH:MM`` or ``HH:MM:SS``, the next time that comes; for argparse.

    Raises:
        ValueError: The text is no time of day.
    """
    parts = [int(part) for part in text.split(":")]
    if not 2 <= len(parts) <= 3 or parts[0] > 23 or max(parts[1:]) > 59 or min(parts) < 0:
        raise ValueError(text)
    now = dt.datetime.now()
    end = now.replace(hour=parts[0], minute=parts[1], second=(*parts, 0)[2], microsecond=0)
    return (end if end > now else end + dt.timedelta(days=1)).timestamp()


def usable_device(text: str) -> str:
    """``cpu``, or ``cuda`` where PyTorch has a GPU to train on; for argparse.

    Raises:
        argparse.ArgumentTypeError: It is something else, or there is no such GPU.
    """
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor cuda")
    if text == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("PyTorch finds no NVIDIA GPU here; give cpu")
    return text


class Session:
    """Minutes of training and the wish to stop; SIGTERM and SIGINT are heard while it is open.

    A step under way is finished, so that what was learnt is saved. Signals reach the main thread
    alone; elsewhere only the minutes end a session.

        with Session(minutes=60) as session:
            while not session.over:
                step()
                session.lap()

    Args:
        minutes: How long this run may go on.
        before: Minutes of earlier runs.
        until: Seconds since the epoch at which the run has to be over as well, whatever its
            minutes; what comes after the last step (measuring, saving) is allowed for.
    """

    def __init__(self, minutes: float, before: float = 0.0, until: float | None = None) -> None:
        if until is not None:
            minutes = min(minutes, (until - time.time()) / 60 - LAST_ROUND_MINUTES)
        self._allowed = minutes
        self._before = before
        self._run = 0.0
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Session:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, lambda *_: self._stop.set())
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def lap(self) -> None:
        """Note the time; all figures below are those of the last lap."""
        self._run = (time.monotonic() - self._began) / 60

    @property
    def minutes(self) -> float:
        """Of this run and the earlier ones."""
        return self._before + self._run

    @property
    def left(self) -> float:
        """Minutes that this run still has; negative when it is late."""
        return self._allowed - self._run

    @property
    def stopped(self) -> bool:
        """Whether a signal came."""
        return self._stop.is_set()

    @property
    def over(self) -> bool:
        """Whether to end: a signal came, or the minutes are up."""
        return self.stopped or self.left <= 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what the detector's and the refiner's command lines have in common."""
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder for checkpoints and logs")
    add("--icdar2015", type=Path, help="folder with images/ and gt/; 801-900 validate")
    add("--icdar2003", type=Path, help="folder with images/ and gt/")
    add("--mlt", type=Path, help="folder with images/ and masks/")
    add("--data", type=Path, help="folder of further data sets: documents, web graphics, plates")
    add("--validation", type=Path, help="folder of unpacked sets to measure on, not learnt from")
    add("--backgrounds", type=Path, help="folder of photos without text")
    add("--scenes", type=float, default=0.0, help="share of rendered scenes, real photos being 1")
    add("--init", type=Path, help="weights to start from, where --work has none")
    add("--minutes", type=float, default=1e9, help="how long this run trains")
    add(
        "--cooldown-minutes",
        type=float,
        default=1e-6,
        help="the rate falls to nothing over the last so many of --minutes",
    )
    add("--until", type=end_time, help="HH:MM[:SS] by which it has ended, whatever --minutes")
    add("--save-every", type=float, default=4, help="minutes between checkpoints")
    add("--workers", type=int, default=0, help="processes that prepare batches")
    add("--device", type=usable_device, default="cpu", metavar="{cpu,cuda}")
    add("--threads", type=int, default=1)
    add("--crop", type=int, default=448, help="side of the crops, a multiple of 32")
    add("--seed", type=int, default=1)
