"""What the CPU can do for int8: with the wrong instruction set it saves memory but little time."""

from __future__ import annotations

import platform
from pathlib import Path

# Dot products of 8-bit integers in one instruction: x86 (AVX-512 VNNI, AVX VNNI, AMX), then Arm.
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_CPUINFO = Path("/proc/cpuinfo")


def int8_note(cpuinfo: Path = _CPUINFO) -> str | None:
    """A line of warning if int8 models will not be fast here; None if they will, or who knows.

    Args:
        cpuinfo: The kernel's description of the CPU; absent on other systems than Linux.
    """
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            if _DOT_PRODUCTS & set(line.partition(":")[2].split()):
                return None
            return (
                f"this {platform.machine()} CPU has no 8-bit dot product (VNNI): int8 will run, "
                "but hardly faster than f32, and its words may differ from those of CPUs that "
                "have it"
            )
    return None
