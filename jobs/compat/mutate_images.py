"""Damaged images through the decoder: pixels, or a reason, and no crash.

python -m jobs.compat.mutate_images --count 3000

Images of the matrix's kinds are cut, zeroed, flipped, shuffled and joined at random. Each is
decoded in a child process, which does many; counted are crashes, time-outs and exceptions, and how
many gave pixels, pixels marked as damaged, or an error.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import random
import resource
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jobs.compat import jpeg2000_kinds, other_kinds, png_kinds, tiff_kinds
from jobs.compat.mutate_archives import mutated
from textspot_ray.images.decode import Decoded, decode

_LIMIT_S = 60.0
_MAX_PIXELS = 200_000_000
_TIFFS_LEFT_OUT = 25  # one of so many is taken


def main() -> int:
    """Exit code 0 if there was no crash, no exception and no time-out."""
    parser = argparse.ArgumentParser(prog="python -m jobs.compat.mutate_images")
    parser.add_argument("--count", type=int, default=3000, help="images")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="FOLDER", help="keep images that went wrong here")
    args = parser.parse_args()
    seeds = images()
    rng = random.Random(args.seed)
    counts: Counter[str] = Counter()
    child, peak_mib, slowest_s = _Child(), 0.0, 0.0
    names = sorted(seeds)
    for number in range(args.count):
        name = names[number % len(names)]
        kind, data = mutated(seeds[name], rng)
        began_s = time.monotonic()
        outcome, peak = child.ask(data)
        slowest_s, peak_mib = max(slowest_s, time.monotonic() - began_s), max(peak_mib, peak)
        counts[outcome.partition(":")[0]] += 1
        if outcome.partition(":")[0] in ("crash", "timeout", "raised"):
            print(f"{number} {name} ({kind}): {outcome}", flush=True)
            child.end()
            child = _Child()
            if args.keep:
                (Path(args.keep) / f"{number}-{name}").write_bytes(data)
    child.end()
    print(f"{args.count} images of {len(seeds)} kinds: {dict(counts)}")
    print(f"slowest {slowest_s:.1f} s, largest peak of a child {peak_mib:.0f} MiB")
    return 1 if counts.keys() & {"crash", "timeout", "raised"} else 0


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
