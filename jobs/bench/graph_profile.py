"""Where a detector's milliseconds go: time of each node of the compiled graph, summed by kind.

    python -m jobs.bench.graph_profile [--model NAME|DIR] [--precision int8] [--shape 1280x768]

Times are those that the CPU plug-in counts itself, on one thread, medians over the runs; a photo
(``--photo``) gives the selection and the crops something to do, grey noise does not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov

from textspot_ray.commands.table_options import size
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.runtime import Runtime, Share


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the compiled graph.

    Attributes:
        name: Its name, which fused nodes take from one of theirs.
        kind: Convolution, Reorder, NMSRotated ...
        implementation: What the plug-in runs, with the precision at its end.
        ms: Median over the runs.
    """

    name: str
    kind: str
    implementation: str
    ms: float


def profile(compiled: Any, inputs: dict[int, Any], runs: int) -> list[NodeTime]:
    """Time the nodes of a model compiled with PERF_COUNT, slowest first."""
    request = compiled.create_infer_request()
    times: dict[str, list[float]] = defaultdict(list)
    what: dict[str, tuple[str, str]] = {}
    for number in range(runs + 2):
        request.infer(inputs, share_inputs=True, share_outputs=True)
        if number < 2:
            continue
        for info in request.profiling_info:
            if info.real_time.total_seconds() > 0:
                times[info.node_name].append(1e3 * info.real_time.total_seconds())
                what[info.node_name] = info.node_type, info.exec_type
    nodes = [NodeTime(n, *what[n], statistics.median(ms)) for n, ms in times.items()]
    return sorted(nodes, key=lambda node: -node.ms)


def table(nodes: Sequence[NodeTime], top: int) -> str:
    """Markdown: sums by kind and implementation, then the slowest nodes."""
    total = sum(node.ms for node in nodes)
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for node in nodes:
        sums[node.kind, node.implementation].append(node.ms)
    lines = ["| kind | implementation | nodes | ms | share |", "|---|---|---|---|---|"]
    for (kind, how), ms in sorted(sums.items(), key=lambda pair: -sum(pair[1])):
        if sum(ms) >= 0.005 * total:
            lines.append(f"| {kind} | {how} | {len(ms)} | {sum(ms):.2f} | {sum(ms) / total:.1%} |")
    lines += [
        f"| all | | {len(nodes)} | {total:.2f} | |",
        "",
        "| slowest nodes | ms |",
        "|---|---|",
    ]
    lines += [f"| {n.kind} {n.name} ({n.implementation}) | {n.ms:.2f} |" for n in nodes[:top]]
    return "\n".join(lines)


def detector_of(
    model: str, precision: str | None, shape: tuple[int, int] | None
) -> tuple[Any, tuple[int, int]]:
    """A bundle's detector compiled to be timed, and width and height of its input."""
    from textspot_ray.spotting.composite.contract import detector_ports

    bundle = load_bundle(model)
    runtime = Runtime(bundle, bundle.resolve_precision(precision), Share(1, 1))
    graph = runtime.read("detector")
    ports = detector_ports(graph, model)
    if shape is not None:
        graph.reshape({ports.image: [1, 3, shape[1], shape[0]]})
    width, height = shape or (ports.width, ports.height)
    pre = ov.preprocess.PrePostProcessor(graph)
    pre.input(ports.image).tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pre.input(ports.image).model().set_layout(ov.Layout("NCHW"))
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if runtime.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": True,
    }
    return runtime.core.compile_model(pre.build(), "CPU", options), (width, height)


def main(argv: Sequence[str] | None = None) -> int:
    """Profile and print."""
    parser = argparse.ArgumentParser(prog="graph_profile", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--model", default="embedded", help="a bundle of words, not of lines")
    add("--precision", choices=("f32", "bf16", "int8"))
    add("--shape", type=size, metavar="WxH")
    add("--photo", type=Path, metavar="FILE")
    add("--runs", type=int, default=10, metavar="N")
    add("--top", type=int, default=25, metavar="N")
    args = parser.parse_args(argv)
    compiled, (width, height) = detector_of(args.model, args.precision, args.shape)
    picture = np.random.default_rng(1).integers(100, 140, (height, width, 3), dtype=np.uint8)
    if args.photo is not None:
        found = cv2.imread(str(args.photo), cv2.IMREAD_COLOR)
        if found is None:
            raise SystemExit(f"{args.photo} cannot be read as an image")
        picture = np.asarray(
            cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
    inputs: dict[int, Any] = {0: picture[np.newaxis]}
    if len(compiled.inputs) > 1:
        inputs[1] = np.array([[height, width, 1.0]], np.float32)
    print(table(profile(compiled, inputs, args.runs), args.top))
    return 0


if __name__ == "__main__":
    sys.exit(main())
