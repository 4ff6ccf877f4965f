"""The Ray engine gives the local engine's tables, row for row."""

from __future__ import annotations

import pytest
from helpers.scripted import plain_scripts, scripted_config, scripted_parts, write_images
from helpers.tables_equal import all_rows

from textspot_ray.cluster.engine import exit_code, run
from textspot_ray.errors import ExitCode

pytestmark = pytest.mark.ray


def test_same_tables_row_for_row(tmp_path, ray_cluster):
    scripts = plain_scripts(30)
    scripts[3] = "do=bad"
    scripts[7] = "words=a,b;pages=5"
    scripts[11] = "do=raise"
    scripts[13] = ""
    folder = write_images(tmp_path / "in", scripts)
    reports = {}
    for kind in ("local", "ray"):
        config = scripted_config(tmp_path / kind, kind=kind)
        reports[kind] = run(config, parts=scripted_parts(folder))
    assert all_rows(tmp_path / "local") == all_rows(tmp_path / "ray")
    assert reports["local"].counts == reports["ray"].counts
    assert reports["ray"].counts.images == 34 and reports["ray"].counts.failed == 2
    assert exit_code(reports["ray"]) is ExitCode.FAILED_IMAGES
