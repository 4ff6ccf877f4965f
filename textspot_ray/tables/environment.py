"""What a commit record says about the machine that made its rows."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from textspot_ray._version import __version__
from textspot_ray.machine import cpu_flags

_PACKAGES = ("openvino", "opencv-python-headless", "numpy", "pyarrow", "ray")
# Instruction sets that decide which kernels run, and so the last digits of confidences.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def describe_environment() -> dict[str, str]:
    """Versions, CPU and node, as short strings; imports none of the packages it names."""
    facts = {
        "textspot_ray": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "node": platform.node(),
        "cpu_flags": " ".join(flag for flag in _FLAGS if flag in cpu_flags()),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts
