"""Whole files damaged at random, tried one by one: what both hunts for crashes have in common."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

Attempt = Callable[[str, bytes], tuple[str, float]]


def hunt(prog: str, count: int, seeds: Mapping[str, bytes], attempt: Attempt, *good: str) -> int:
    """Damage files and try each; what goes wrong is printed, and kept where ``--keep`` says.

    Args:
        prog: The command that this is.
        count: Files, unless ``--count`` says another number.
        seeds: Whole files by name.
        attempt: Given a name and a damaged file, its outcome (what comes before a colon is
            counted) and the peak of memory in MiB. It must not raise.
        good: Outcomes with which all is well.

    Returns:
        Exit code 0 if there was no other outcome.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}")
    parser.add_argument("--count", type=int, default=count, help="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="FOLDER", help="keep files that went wrong here")
    args = parser.parse_args()
    rng, names = random.Random(args.seed), sorted(seeds)
    counts: Counter[str] = Counter()
    peak_mib = slowest_s = 0.0
    for number in range(args.count):
        name = names[number % len(names)]
        kind, data = mutated(seeds[name], rng)
        began_s = time.monotonic()
        outcome, peak = attempt(name, data)
        slowest_s, peak_mib = max(slowest_s, time.monotonic() - began_s), max(peak_mib, peak)
        word = outcome.partition(":")[0]
        counts[word] += 1
        if word not in good:
            print(f"{number} {name} ({kind}): {outcome}", flush=True)
            if args.keep:
                (Path(args.keep) / f"{number}-{name}").write_bytes(data)
    print(f"{args.count} files of {len(seeds)} kinds: {dict(counts)}")
    print(f"slowest {slowest_s:.1f} s, largest peak {peak_mib:.0f} MiB")
    return 0 if counts.keys() <= set(good) else 1


def mutated(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A damaged copy, and what was done to it."""
    work = bytearray(data)
    names = sorted(_MUTATIONS)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(names)
        work = _MUTATIONS[name](work, rng)
        done.append(name)
    return "+".join(done), bytes(work)


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.randrange(1, 9)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _zero(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice((1, 16, 512, 4096))
    at = rng.randrange(len(data) + 1)
    data[at : at + size] = bytes(len(data[at : at + size]))
    return data


def _noise(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    data[at : at + 64] = rng.randbytes(len(data[at : at + 64]))
    return data


def _drop(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 512, 3000))]
    return data


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 512, 3000)))
    return data


def _double(data: bytearray, rng: random.Random) -> bytearray:
    return data + data[rng.randrange(len(data) + 1) :]


def _ends(data: bytearray, rng: random.Random) -> bytearray:
    """Bytes of the first and last 200, where sizes, counts and offsets are."""
    for _ in range(3):
        if len(data) > 400:
            at = rng.choice((rng.randrange(200), len(data) - 1 - rng.randrange(200)))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return data


_MUTATIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "cut": _cut,
    "flip": _flip,
    "zero": _zero,
    "noise": _noise,
    "drop": _drop,
    "insert": _insert,
    "double": _double,
    "ends": _ends,
}
