"""What RapidOCR reads in a folder, for `jobs.training score`: one line of JSON an image.

python -m jobs.bench.rival_texts FOLDER --out rival.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from textspot_ray.errors import MissingExtraError

_SUFFIXES = (".jpg", ".jpeg", ".png")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="rival_texts", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", help="only the images whose names this file lists, one a line")
    args = parser.parse_args()
    wanted = set(Path(args.names).read_text().split()) if args.names else None
    engine = _engine()
    with args.out.open("w", encoding="utf-8") as out:
        for path in sorted(args.folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES and (wanted is None or path.stem in wanted):
                lines = list(engine(str(path)).txts or ())
                print(json.dumps({"image": path.name, "lines": lines}), file=out)
    return 0


def _engine() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError as exc:
        raise MissingExtraError("comparing with rapidocr", "bench") from exc
    logging.disable(logging.CRITICAL)
    return RapidOCR()


if __name__ == "__main__":
    raise SystemExit(main())
