"""What the model does: bundles, runtime, tiling; model families follow `family`. No Ray here."""

import sys

# OpenVINO reports every import of itself to its makers' web analytics, from a forked process and
# under an id that it leaves in ~/intel, unless this package of its own is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
