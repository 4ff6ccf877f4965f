"""How commands print counts: one wording for all of them."""

from __future__ import annotations

from textspot_ray.records import Counts, RunReport
from textspot_ray.redaction import redact_text
from textspot_ray.wording import counted, duration, number


def counts_lines(counts: Counts, out: str = "DIR") -> list[str]:
    """A table's counts, a line each.

    Args:
        counts: The counts.
        out: The table's folder, as it is shown in commands.
    """
    lines = [
        f"images   {number(counts.images)}: {number(counts.with_words)} with words, "
        f"{number(counts.empty)} without, {number(counts.failed)} failed",
        f"words    {number(counts.words)}",
    ]
    if counts.failures:
        kinds = sorted(counts.failures.items(), key=lambda kind: (-kind[1], kind[0]))
        lines.append("failures " + ", ".join(f"{number(n)} {kind}" for kind, n in kinds))
    if counts.damaged:
        lines.append(
            f"damaged  {counted(counts.damaged, 'file')} read as far as a decoder could: "
            f"textspot errors {out} --damaged"
        )
    return lines


def print_report(report: RunReport) -> None:
    """Print the summary of a run."""
    done, out = report.run_counts, redact_text(report.out)
    speed = done.images / report.elapsed_s if report.elapsed_s else 0.0
    print(
        f"this run spotted {counted(done.images, 'image')} in {duration(report.elapsed_s)} "
        f"({speed:.1f} images/s); the table now holds"
    )
    for line in counts_lines(report.counts, out):
        print(f"  {line}")
    if report.skipped:
        reasons = ", ".join(f"{number(n)} {reason}" for reason, n in sorted(report.skipped.items()))
        print(f"  skipped  {reasons}")
    if report.signal:
        left = report.shards_total - report.shards_done
        print(
            f"stopped by a signal with {counted(left, 'shard')} left; run the same command to go on"
        )
    elif report.counts.failed:
        print(f"list the failures with: textspot errors {out}")
    print(f'query it with: textspot query {out} "SELECT text FROM words LIMIT 10"')
