"""A warning where int8 will not pay, silence where it will or nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from textspot_ray.machine import int8_note


@pytest.mark.parametrize(
    ("line", "warns"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16", False),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("flags\t\t: fpu avx2 fma", True),
        ("flags\t\t: fpu avx2 avx512f avx512vl", True),
        ("Features\t: fp asimd asimddp", False),
        ("Features\t: fp asimd", True),
    ],
)
def test_flags(tmp_path: Path, line: str, warns: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\npower management:\n")
    note = int8_note(tmp_path / "cpuinfo")
    assert (note is not None) == warns
    assert note is None or ("VNNI" in note and "\n" not in note)


def test_unknown_systems_are_silent(tmp_path: Path) -> None:
    assert int8_note(tmp_path / "none") is None
    (tmp_path / "cpuinfo").write_text("Processor: something\n")
    assert int8_note(tmp_path / "cpuinfo") is None
