"""Taking counts away again (adding is `Counts.__add__`)."""

from __future__ import annotations

from textspot_ray.records import Counts


def subtract(total: Counts, part: Counts) -> Counts:
    """Counts without those of a part."""
    failures = {k: n - part.failures.get(k, 0) for k, n in total.failures.items()}
    return Counts(
        items=total.items - part.items,
        images=total.images - part.images,
        with_words=total.with_words - part.with_words,
        empty=total.empty - part.empty,
        failed=total.failed - part.failed,
        words=total.words - part.words,
        failures={kind: n for kind, n in failures.items() if n},
    )
