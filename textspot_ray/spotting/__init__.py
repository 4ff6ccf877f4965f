"""Models: bundles, runtime, tiling, and the model families (see `family`). No Ray here."""

import sys

# OpenVINO reports every import to its makers' web analytics, from a forked process and with an id
# that it stores in ~/intel, unless its package for this cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
