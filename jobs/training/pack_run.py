"""Starts or resumes the trainings of a packed folder; see jobs/training/pack.py.

python3 run.py --minutes 9 --device cuda --processes 14 --out out
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands(args: argparse.Namespace, until: str, minutes: float) -> dict[str, list[str]]:
    """Command lines of both trainings."""
    data, weights = HERE / "data", HERE / "code/jobs/training/weights"
    cuda = args.device == "cuda"
    processes = max(0, args.processes // 2)
    common = [
        f"--until={until}", f"--minutes={minutes:.2f}", f"--device={args.device}", "--save-every=1",
        f"--workers={processes}", f"--threads={2 if cuda else 1}", f"--data={data}",
        f"--cooldown-minutes={args.cooldown_share * minutes:.2f}", f"--seed={int(time.time())}",
    ]  # fmt: skip
    detector = [
        f"--work={args.out / 'detector'}", f"--init={weights / 'detector.npz'}",
        f"--icdar2015={data / 'icdar2015_train'}", f"--icdar2003={data / 'icdar2003_train'}",
        f"--mlt={data / 'mlt_english_masks'}", f"--backgrounds={data / 'backgrounds'}",
        "--scenes=0.3", "--crop=576", f"--batch={32 if cuda else 4}", "--lr=1.5e-3",
        f"--validate-every={2 if cuda else 30}", "--validate-step=1",
    ]  # fmt: skip
    reader = [
        f"--work={args.out / 'reader'}", f"--init={weights / 'reader.npz'}",
        f"--labels={HERE / 'code/jobs/labels/mlt_words.tsv'}", "--difficulty=1.0",
        "--real-share=0.55", f"--batch={256 if cuda else 32}", "--lr=1.5e-3",
        f"--every={2 if cuda else 30}",
    ]  # fmt: skip
    parts = {"detector": detector, "reader": reader}
    return {
        part: [sys.executable, "-m", "jobs.training", part, *common, *own]
        for part, own in parts.items()
        if part in args.parts
    }


def unpack_shards() -> None:
    """Lay out the data sets, once."""
    for shard in sorted((HERE / "shards").glob("*.tar")):
        if not (HERE / "data" / shard.stem).is_dir():
            with tarfile.open(shard) as tar:
                tar.extractall(HERE / "data", filter="data")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Start or resume the packed trainings.")
    parser.add_argument("--minutes", type=float, required=True, help="all has ended by then")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--processes", type=int, default=14, help="that prepare batches, in all")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--cooldown-share", type=float, default=0.35, help="of the minutes")
    parser.add_argument("--parts", nargs="+", default=["detector", "reader"])
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * args.minutes
    unpack_shards()
    until = time.strftime("%H:%M:%S", time.localtime(end))
    environment = {
        **os.environ, "PYTHONPATH": str(HERE / "code"), "HOME": str(HERE / "home"),
        "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    running = {
        # a session of its own, so that the processes that make its batches end with it
        part: subprocess.Popen(command, env=environment, cwd=HERE / "code", start_new_session=True)
        for part, command in commands(args, until, (end - time.time()) / 60).items()
    }
    for child in running.values():
        try:
            child.wait(max(1.0, end - time.time()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # what it saved a minute ago at most is there
            child.wait()
    for part, child in running.items():
        print(f"{part}: exit code {child.returncode}")
    return max(abs(child.returncode or 0) for child in running.values())


if __name__ == "__main__":
    sys.exit(main())
