"""CPU instructions that make int8 and bf16 fast; without them both gain little."""

from __future__ import annotations

import platform
from pathlib import Path

# Dot products of 8-bit integers in one instruction: x86 (AVX-512 VNNI, AVX VNNI, AMX), then Arm.
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm
_CPUINFO = Path("/proc/cpuinfo")


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Instruction sets of the CPU; empty where they are not known.

    Args:
        cpuinfo: The kernel's description of the CPU; absent on other systems than Linux.
    """
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def has_int8_dot_product(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Whether int8 models run by the 8-bit dot product; None if that is not known.

    Args:
        cpuinfo: As of `cpu_flags`.
    """
    flags = cpu_flags(cpuinfo)
    return not flags.isdisjoint(INT8_FLAGS) if flags else None


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself; False where it is not known."""
    return not cpu_flags().isdisjoint(BF16_FLAGS)


def int8_note(cpuinfo: Path = _CPUINFO) -> str | None:
    """A warning if int8 models will not be fast here; None if they will, or if it is not known.

    Args:
        cpuinfo: As of `cpu_flags`.
    """
    if has_int8_dot_product(cpuinfo) is not False:
        return None
    return (
        f"this {platform.machine()} CPU has no 8-bit dot product (VNNI): int8 will run, "
        "but hardly faster than f32, and its words may differ from those of CPUs that "
        "have it"
    )
