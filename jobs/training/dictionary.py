"""The package's list of English words, from spelling dictionaries and our own street words.

    cd /usr/share/dict
    python -m jobs.training dictionary american-english-large american-english british-english \\
        --out textspot_ray/spotting/data/english.txt

The committed list is of these, from Debian's packages wamerican-large, wamerican and wbritish
2020.12.07-2 (SCOWL).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.training.reader.network import ALPHABET
from jobs.training.render.words import STREET_WORDS
from textspot_ray.errors import UsageError
from textspot_ray.spotting.dictionary import words_of_lists


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="dictionary", description=__doc__.split("\n")[0])
    parser.add_argument("lists", nargs="+", type=Path, help="dictionaries, a word a line")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    texts = list(STREET_WORDS)
    for path in args.lists:
        if not path.is_file():
            raise UsageError(f"{path}: no such list; install a dictionary, such as wamerican-large")
        texts += path.read_text(encoding="utf-8", errors="replace").splitlines()
    words = words_of_lists(texts, ALPHABET)
    args.out.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    print(f"{args.out}: {len(words):,} words")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
