"""The five-minute start: spot the sample images on Ray, show the words, say how to query them.

The samples are rendered scenes made by this project (``python -m textspot_ray.training.scenes``),
once as a folder and once as a tar.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from textspot_ray.cli import main as textspot
from textspot_ray.errors import ExitCode

SAMPLES = Path(__file__).parent / "demo"
QUERY = """SELECT split_part(image_id, '/', -1) AS image, text, round(text_confidence, 2) AS read,
       round(detection_confidence, 2) AS found, round(x_min)::INT AS x, round(y_min)::INT AS y
FROM words WHERE text_confidence >= 0.3 ORDER BY image_id, word_index LIMIT 40"""


def main() -> int:
    """Run the main job on the samples, print the words, and two commands to go on with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="demo-out", help="folder of the tables")
    parser.add_argument("--engine", choices=("ray", "local"), default="ray")
    args = parser.parse_args()
    sources = [str(SAMPLES / "photos"), str(SAMPLES / "signs.tar")]
    code = textspot(["run", *sources, "--out", args.out, "--engine", args.engine])
    if code != ExitCode.OK:
        return code
    print("\nWords found (the surest of each image):\n", flush=True)
    textspot(["query", args.out, QUERY])
    most = "SELECT text, count(*) AS n FROM words GROUP BY text ORDER BY n DESC LIMIT 10"
    program = Path(sys.executable).with_name("textspot")
    with contextlib.suppress(ValueError):  # run from elsewhere: the full path is right as well
        program = program.relative_to(Path.cwd())
    print(f'\nGo on with, for example:\n\n  {program} query {args.out} "{most}"')
    print(f"  {program} search {args.out} --fuzzy 1 exit")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
