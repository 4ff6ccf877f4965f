"""Named points in the commit protocol where tests kill the process.

``TEXTSPOT_FAULT=before_marker:2`` ends the process, without any clean-up, the second time that
point is passed: as close as a test can get to ``kill -9`` at a chosen instruction. Without the
variable a point costs one look-up.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

VARIABLE: Final = "TEXTSPOT_FAULT"
EXIT_STATUS: Final = 137

POINTS: Final = (
    "table",
    "before_segment",
    "after_segment",
    "before_parts",
    "between_parts",
    "before_marker",
    "after_marker",
    "before_snapshot",
    "after_snapshot",
    "before_delete",
    "compact_parts",
)

_passed: Counter[str] = Counter()  # used only when a test has armed a point


def fault(name: str) -> None:
    """End the process here if a test asked for it."""
    armed = os.environ.get(VARIABLE)
    if not armed:
        return
    point, _, count = armed.partition(":")
    if point != name:
        return
    _passed[name] += 1
    if _passed[name] == int(count or 1):
        os._exit(EXIT_STATUS)
