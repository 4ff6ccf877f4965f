"""What the inputs and outputs of an OpenVINO graph look like, for contracts and their messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def dims(port: Any) -> tuple[int | None, ...]:
    """Sizes of a port's tensor; None where a graph leaves one open."""
    return tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())


def shapes(ports: Iterable[Any]) -> str:
    """Ports as ``name [dims]``, for messages."""

    def shown(port: Any) -> str:
        name = min(port.get_names(), key=len, default="?")
        return f"{name} [{', '.join('?' if d is None else str(d) for d in dims(port))}]"

    return "; ".join(shown(port) for port in ports) or "none"
