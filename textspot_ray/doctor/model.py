"""Check of the model: it is there, its checksums are right, it compiles and runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from textspot_ray.config import ModelConfig
from textspot_ray.doctor.finding import CheckResult, ok, warn
from textspot_ray.engine.sizing import available_cpus
from textspot_ray.wording import counted


def check_model(model: ModelConfig) -> Iterator[CheckResult]:
    """Load, verify and compile the bundle, and spot one blank image.

    Raises:
        TextspotError: One of these does not work.
    """
    import numpy as np

    from textspot_ray.spotting.catalogue import load_bundle
    from textspot_ray.spotting.composite.contract import INPUT_HEIGHT, INPUT_WIDTH
    from textspot_ray.spotting.spotter import TextSpotter

    bundle = load_bundle(model.name)
    precision = bundle.resolve_precision(model.precision)
    bundle.verify(precision)
    named = f"{bundle.spec.name} {bundle.spec.version}"
    yield ok("model", f"{named}: checksums of {precision} are right ({bundle.folder})")
    started = time.perf_counter()
    spotter = TextSpotter.load(
        model.name,
        precision=precision,
        detection_threshold=model.detection_threshold,
        alphabet=model.alphabet,
        dictionary=model.dictionary,
        words=model.words,
        threads=max(1, int(available_cpus())),
    )
    blank = np.full((INPUT_HEIGHT, INPUT_WIDTH, 3), 255, np.uint8)
    words = spotter(blank)
    loaded_s = time.perf_counter() - started
    started = time.perf_counter()
    spotter(blank)
    one_s = time.perf_counter() - started
    text = f"{named} {precision}: compiled in {loaded_s:.1f} s, a blank image in {one_s:.2f} s"
    if words:
        yield warn(
            "model",
            f"{text}, with {counted(len(words), 'word')} in it",
            "a bundle should find no words in a blank image",
        )
    else:
        yield ok("model", text)
