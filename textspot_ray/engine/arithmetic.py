"""What of a machine changes results: all rows of a table come from one arithmetic."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from textspot_ray.errors import UsageError
from textspot_ray.machine import has_int8_dot_product

if TYPE_CHECKING:
    from textspot_ray.config import EngineConfig

INT8_KEY: Final = "int8_arithmetic"


def arithmetic_of(precision: str, engine: EngineConfig) -> dict[str, str]:
    """The part of a table's fingerprint that depends on the machine and how it is used.

    In f32 and with the 8-bit dot product, CPUs agree within 0.5 pixels of a coordinate and 0.001 of
    a confidence. Without that instruction OpenVINO's int8 rounds differently: of 111 words of eight
    photographs, seven were not found.
    The threads of one inference decide in which order partial sums are added.

    Returns:
        Empty for the usual case, so that tables of older versions agree.
    """
    found = {}
    if engine.threads_per_inference != 1:
        found["threads_per_inference"] = str(engine.threads_per_inference)
    if precision == "int8" and has_int8_dot_product() is False:
        found[INT8_KEY] = "without 8-bit dot product"
    return found


def check_arithmetic(fingerprint: Mapping[str, str], engine: EngineConfig) -> None:
    """Check that a slot's machine calculates as the table's fingerprint says.

    Raises:
        UsageError: It does not: its rows would differ from those of the other machines.
    """
    precision = fingerprint.get("precision", "")
    here = arithmetic_of(precision, engine).get(INT8_KEY)
    if here != fingerprint.get(INT8_KEY):
        raise UsageError(
            f"the CPU of {platform.node()} multiplies 8-bit numbers otherwise (VNNI), so that it "
            "reads other words: --precision f32, or nodes of one kind"
        )
