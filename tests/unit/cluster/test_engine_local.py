"""The in-process engine, end to end with scripted models in a real child process."""

from __future__ import annotations

from helpers.scripted import plain_scripts, scripted_config, scripted_parts, write_images

from textspot_ray.cluster.engine import exit_code, run
from textspot_ray.errors import ExitCode
from textspot_ray.tables.open import open_tables


def test_every_image_is_accounted_for(tmp_path):
    folder = write_images(tmp_path / "in", plain_scripts(40))
    report = run(scripted_config(tmp_path / "out"), parts=scripted_parts(folder))
    assert report.counts.images == 40
    assert report.counts.words == sum(n % 3 for n in range(40))
    assert exit_code(report) is ExitCode.OK
    tables = open_tables(str(tmp_path / "out"))
    assert tables.read("images").num_rows == 40
