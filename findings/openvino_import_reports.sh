#!/usr/bin/env bash
# Importing OpenVINO, and doing nothing else, starts a child process that reports to web analytics.
#
# Guess: conversion tools may report their use, after asking; a runtime that is imported for
# inference loads its libraries and does nothing else.
# What happens: `import openvino` imports the converter too, whose module sends an event on import:
# multiprocessing forks a child for the request, and an id is written to ~/intel/openvino_ga_cid.
# In a job of many worker processes that is a fork, a file and a request each; the fork also runs the
# at-fork hooks of whatever library is half imported.
# Versions: openvino 2026.4.1, openvino-telemetry 2025.2.0, Python 3.11. November 2026.
#
# Ends with 0 while this is so. Requests are pointed at a closed port of this machine, so that the
# script itself reports nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 openvino-telemetry==2025.2.0
cat > "$folder/look.py" <<'PYTHON'
import multiprocessing.process
import sys
import time
from pathlib import Path

started = []
start = multiprocessing.process.BaseProcess.start


def noted(process):
    started.append(process)
    start(process)


multiprocessing.process.BaseProcess.start = noted
import openvino

time.sleep(2)  # it is started from a thread
named = Path.home() / "intel" / "openvino_ga_cid"
print(f"  child processes started by the import: {len(started)}; an id was written: {named.exists()}")
sys.exit(0 if started and named.exists() else 1)
PYTHON
"$folder/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -i openvino
mkdir "$folder/home"
env HOME="$folder/home" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9 \
    "$folder/venv/bin/python" "$folder/look.py"
