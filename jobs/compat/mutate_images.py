"""Damaged images through the decoder: pixels, or a reason, and no crash.

python -m jobs.compat.mutate_images --count 3000

Images of the matrix's kinds are cut, zeroed, flipped, shuffled and joined at random. Each is
decoded in a child process, which does many; counted are crashes, time-outs and exceptions, and how
many gave pixels, pixels marked as damaged, or an error.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jobs.compat import jpeg2000_kinds, other_kinds, png_kinds, tiff_kinds
from jobs.compat.mutations import hunt
from textspot_ray.images.decode import Decoded, decode

_LIMIT_S = 60.0
_MAX_PIXELS = 200_000_000
_GOOD = ("pixels", "damaged", "error")
_TIFFS_LEFT_OUT = 25  # one of so many is taken


def main() -> int:
    """Exit code 0 if there was no crash, no exception and no time-out."""
    child = _Child()

    def attempt(name: str, data: bytes) -> tuple[str, float]:
        nonlocal child
        outcome, peak_mib = child.ask(data)
        if outcome.partition(":")[0] not in _GOOD:
            child.end()
            child = _Child()
        return outcome, peak_mib

    status = hunt("jobs.compat.mutate_images", 3000, images(), attempt, *_GOOD)
    child.end()
    return status


def images() -> dict[str, bytes]:
    """One whole image of each kind that can be made here, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        made = [
            *png_kinds.kinds(Path(folder)),
            *jpeg2000_kinds.kinds(Path(folder)),
            *other_kinds.kinds(Path(folder)),
            *tiff_kinds.tifffile_kinds(_TIFFS_LEFT_OUT),
        ]
    return {one.name: one.data for one in made if one.data}


class _Child:
    """A process that decodes what it is sent, until it is ended or ends."""

    def __init__(self) -> None:
        self._ours, theirs = mp.Pipe()
        self._process = mp.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, data: bytes) -> tuple[str, float]:
        """What came of an image, and the child's peak of memory so far, MiB."""
        try:
            self._ours.send_bytes(data or b"\0")
            if not self._ours.poll(_LIMIT_S):
                return "timeout: no answer", 0.0
            answer: tuple[str, float] = self._ours.recv()
            return answer
        except (EOFError, OSError):
            self._process.join(5.0)
            return f"crash: exit code {self._process.exitcode}", 0.0

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        outcome = _decoded(data)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send((outcome, peak_mib))


def _decoded(data: bytes) -> str:
    try:
        found: Any = decode(data, max_pixels=_MAX_PIXELS)
    except BaseException as exc:  # which it promises never to let out
        return f"raised: {type(exc).__name__}: {exc}"
    if not isinstance(found, Decoded):
        return f"error: {found.message}"
    return f"damaged: {found.damage}" if found.damage else "pixels"


if __name__ == "__main__":
    raise SystemExit(main())
