"""Small helpers around compiled graphs."""

from __future__ import annotations

import numpy as np
import openvino as ov


def compiled(model: ov.Model) -> ov.CompiledModel:
    return ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    )


def named(results: dict[ov.ConstOutput, np.ndarray]) -> dict[str, np.ndarray]:
    return {next(iter(output.names)): value for output, value in results.items()}
