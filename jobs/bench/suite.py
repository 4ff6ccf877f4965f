"""The table of speeds: each line a ratio of two variants timed in turn within one run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jobs.bench.bare import BareArithmetic, DecoderSteps
from jobs.bench.demo_way import DemoWay
from jobs.bench.pipeline import Pipeline
from jobs.bench.reading import Reading
from jobs.bench.stand_in import write_stand_in
from jobs.bench.timing import Ratio, Timing, Work, interleave, ratio
from textspot_ray.config import EngineConfig
from textspot_ray.spotting.bundle import Bundle
from textspot_ray.spotting.catalogue import load_bundle

BOXES, STEPS = 10, 7  # ten words of six letters, each with its end


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how long.

    Attributes:
        photos: Images to repeat; the stand-in finds its boxes on any.
        work: Folder for stand-ins (kept) and tables (deleted).
        precisions: Of the pipeline.
        cores: Used by every variant.
        streams: Of the pipeline's detector.
        images: A round.
        rounds: Counted rounds; one more comes before them.
        model: A bundle to measure instead of the stand-in; it needs f32 files.
        say: Takes a line as measuring goes on.
    """

    photos: Sequence[Path]
    work: Path
    precisions: Sequence[str] = ("int8", "bf16")
    cores: int = 2
    streams: int = 2
    images: int = 8
    rounds: int = 5
    model: str | None = None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        what: The variant measured, and what it is compared with.
        ratio: How many times as fast it is.
        bar: What it must reach; None where nothing is asked.
        goal: What it should reach.
        slow: Timing of what it is compared with.
        fast: Timing of the variant.
        unit: Of the timings.
    """

    what: str
    ratio: Ratio
    bar: float | None
    goal: float | None
    slow: Timing
    fast: Timing
    unit: str = "image"


@dataclass(slots=True)
class Stages:
    """Milliseconds an image, by stage, of one pipeline.

    Stages are timed by the clock in their own threads; ``encode`` and ``step`` are recognition,
    divided as the two divide it on prepared tensors; ``wait`` is what the cores had left over in
    the images' wall time: idle, or taken by other processes.
    """

    title: str
    ms: dict[str, float] = field(default_factory=dict)


def against_demo(options: Options) -> tuple[list[Line], list[Stages]]:
    """The pipeline against the demo's way and against the bare arithmetic."""
    bundle = _bundle(options, BOXES)
    demo = DemoWay(bundle, STEPS)
    lines: list[Line] = []
    tables: list[Stages] = []
    for precision in options.precisions:
        with _pipeline(options, bundle, precision) as pipeline:
            bare = _fastest_bare(options, bundle, precision, BOXES)
            variants: dict[str, Work] = {
                "demo": lambda: _demo_round(demo, options.photos),
                "bare": partial(bare, options.images),
                "pipeline": pipeline,
            }
            times = interleave(variants, options.rounds, on_round=_titled(options, precision))
            bars = {"int8": (3.0, 4.0), "bf16": (1.6, 2.0)}.get(precision, (None, None))
            pairs = (
                (f"{precision} pipeline / the demo's way in f32", "demo", bars),
                (f"{precision} pipeline / bare arithmetic", "bare", (0.90, 0.95)),
            )
            for what, base, (bar, goal) in pairs:
                fast, slow = times["pipeline"], times[base]
                lines.append(Line(what, ratio(slow, fast), bar, goal, slow, fast))
            title = f"{precision}, {BOXES} words an image"
            table = _stages(title, pipeline, times["pipeline"], BOXES, options)
            tables.append(_with_reading_split(table, bundle, precision))
    return lines, tables


def without_text(options: Options) -> tuple[list[Line], list[Stages]]:
    """The pipeline on photos without text against the bare detector."""
    bundle = _bundle(options, 0)
    lines: list[Line] = []
    tables: list[Stages] = []
    for precision in options.precisions:
        with _pipeline(options, bundle, precision) as pipeline:
            bare = _fastest_bare(options, bundle, precision, 0)
            variants: dict[str, Work] = {
                "detector": partial(bare, options.images),
                "pipeline": pipeline,
            }
            title = f"{precision}, no text"
            times = interleave(variants, options.rounds, on_round=_titled(options, title))
            fast, slow = times["pipeline"], times["detector"]
            what = f"{precision} pipeline on empty photos / bare detector"
            lines.append(Line(what, ratio(slow, fast), 0.95, 0.98, slow, fast))
            tables.append(_stages(title, pipeline, times["pipeline"], 0, options))
    return lines, tables


def decoder_steps(options: Options) -> list[Line]:
    """The decoder's step after cutting out its step-independent part, and the reader around it."""
    bundle = _bundle(options, BOXES)
    lines: list[Line] = []
    for precision in options.precisions:
        steps = DecoderSteps(bundle, precision)
        reading = Reading(bundle, precision, words=BOXES, steps=STEPS)
        times = interleave(
            {
                "published": partial(steps.published, 100),
                "cut": partial(steps.cut, 100),
                "encoder": reading.encode,
                "bare reading": reading.encode_and_step,
                "recogniser": reading.recognise,
            },
            max(options.rounds, 5),
            on_round=_titled(options, precision),
        )
        largest = steps.largest_difference(STEPS)
        what = f"{precision} decoder step, cut / as published (logits differ by {largest:.1e})"
        pair = times["published"], times["cut"]
        lines.append(Line(what, ratio(*pair), 3.0, 5.0, *pair, unit="step"))
        pair = times["bare reading"], times["recogniser"]
        share = times["encoder"].ms / times["bare reading"].ms
        options.say(f"{precision}: {100 * share:.0f} % of reading is the encoder")
        what = f"{precision} recogniser / bare encoder and steps"
        lines.append(Line(what, ratio(*pair), None, None, *pair, unit="word"))
    return lines


def ray_against_local(options: Options) -> list[Line]:
    """A slot on Ray against the same slot in this process."""
    bundle = _bundle(options, BOXES)
    precision = options.precisions[0]
    with (
        _pipeline(options, bundle, precision) as local,
        _pipeline(options, bundle, precision, kind="ray") as ray,
    ):
        times = interleave(
            {"local": local, "ray": ray}, options.rounds, on_round=_titled(options, precision)
        )
    pair = times["local"], times["ray"]
    return [Line(f"{precision} Ray / in-process engine", ratio(*pair), 0.93, 0.97, *pair)]


def sweep(options: Options, combinations: Sequence[tuple[int, int, int]]) -> list[Line]:
    """Time the pipeline with threads x streams x detector actors, against the first combination.

    More than one actor means Ray; one is measured in process.
    """
    bundle = _bundle(options, BOXES)
    precision = options.precisions[0]
    with ExitStack() as stack:
        variants: dict[str, Work] = {}
        for threads, streams, actors in combinations:
            name = f"threads {threads}, streams {streams}, detectors {actors}"
            kind = "ray" if actors > 1 else "local"
            variants[name] = stack.enter_context(
                _pipeline(
                    options,
                    bundle,
                    precision,
                    kind=kind,
                    threads=threads,
                    streams=streams,
                    actors=actors,
                )
            )
        times = interleave(variants, options.rounds, on_round=_titled(options, precision))
    first = next(iter(times.values()))
    return [
        Line(name, ratio(first, timing), None, None, first, timing)
        for name, timing in times.items()
    ]


def _bundle(options: Options, boxes: int) -> Bundle:
    """The bundle to measure, written if need be."""
    if options.model is not None:
        return load_bundle(options.model)
    precision = "int8" if "int8" in options.precisions else "f32"
    folder = options.work / f"stand-in-{boxes}x{STEPS}-{precision}"
    if not (folder / "bundle.yaml").is_file():
        options.say(f"writing a stand-in with {boxes} boxes an image to {folder}")
        write_stand_in(folder, boxes=boxes, symbols=STEPS, precision=precision)
    return load_bundle(str(folder))


@contextmanager
def _pipeline(
    options: Options,
    bundle: Bundle,
    precision: str,
    *,
    kind: str = "local",
    threads: int | None = None,
    streams: int | None = None,
    actors: int = 1,
) -> Iterator[Pipeline]:
    name = f"{os.getpid()}-{kind}-{precision}-{threads}-{streams}-{actors}"
    folder = options.work / "tables" / name
    shutil.rmtree(folder, ignore_errors=True)
    engine = EngineConfig(
        kind=kind,
        threads=threads or options.cores,
        threads_per_inference=max(1, (threads or options.cores) // (streams or options.streams)),
        detectors_per_slot=actors,
        in_flight=options.cores + 2,
    )
    pipeline = Pipeline(
        str(bundle.folder),
        precision,
        options.photos,
        folder,
        images=options.images,
        rounds=options.rounds + 2,  # one uncounted, one for the writer
        engine=engine,
    )
    try:
        yield pipeline
    finally:
        pipeline.close()
        shutil.rmtree(folder, ignore_errors=True)


def _fastest_bare(options: Options, bundle: Bundle, precision: str, boxes: int) -> BareArithmetic:
    """One inference a core, or one on all cores: whichever is faster here."""
    candidates = {
        f"bare, {streams} stream(s)": BareArithmetic(
            bundle, precision, cores=options.cores, streams=streams, boxes=boxes, steps=STEPS
        )
        for streams in sorted({1, options.cores})
    }
    works: dict[str, Work] = {
        name: partial(bare, options.cores) for name, bare in candidates.items()
    }
    times = interleave(works, 2, on_round=_titled(options, precision))
    return candidates[min(times, key=lambda name: times[name].ms)]


def _demo_round(demo: DemoWay, photos: Sequence[Path]) -> int:
    for photo in photos[:2]:
        demo(photo)
    return 2


def _stages(title: str, pipeline: Pipeline, timing: Timing, words: int, options: Options) -> Stages:
    spent = pipeline.spent
    images = max(spent.images, 1)
    table = Stages(title, {name: 1e3 * s / images for name, s in spent.stage_s.items()})
    table.ms["write"] = 1e3 * pipeline.write_s(words)
    table.ms["wait"] = max(0.0, options.cores * timing.ms - timing.cpu_ms)
    table.ms["wall"] = timing.ms
    return table


def _with_reading_split(table: Stages, bundle: Bundle, precision: str) -> Stages:
    """The table with recognition told apart into encoder and decoder steps."""
    reading = Reading(bundle, precision, words=BOXES, steps=STEPS)
    times = interleave({"encode": reading.encode, "both": reading.encode_and_step}, 5)
    recognise = table.ms.pop("recognise", 0.0)
    share = min(1.0, times["encode"].cpu_ms / times["both"].cpu_ms)
    table.ms["encode"], table.ms["step"] = recognise * share, recognise * (1 - share)
    return table


def _titled(options: Options, title: str) -> Callable[[str], None]:
    return lambda line: options.say(f"{title}: {line}")
