"""The five-minute start: spot the sample images on Ray, show the words, say how to query them.

The samples are rendered scenes made by this project (``python -m jobs.training.render.scenes``),
once as a folder and once as a tar.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from textspot_ray.cli import main as textspot
from textspot_ray.errors import ExitCode

SAMPLES = Path(__file__).parent / "demo"
QUERY = """SELECT regexp_extract(image_id, '[^/]*$') AS image, count(*) AS n,
       string_agg(text, ' ' ORDER BY y_min, x_min) AS words
FROM words WHERE text_confidence >= 0.3 GROUP BY image_id ORDER BY image_id"""


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
    print("\nWords found with a confidence of 0.3 or more:\n", flush=True)
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
