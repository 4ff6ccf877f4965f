"""Graph surgery on the decoder: loop-invariant code motion out of the step.

The published decoder projects all 784 encoder vectors again at every step, 99 % of its arithmetic,
although the projection depends only on the encoder's output. Here that part is found by structure
(all that depends on ``encoder_outputs`` and on neither the last symbol nor the hidden state), moved
behind the encoder, and fed to the step as inputs. If such an input is used only by the attention's
tanh, its exponential is fed instead (`take_exponential`). A decoder without such a part stays as it
is, but is given no more of the encoder's output than it reads (`_what_is_read`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from textspot_ray.spotting.composite.contract import ENCODED_CHANNELS, POSITIONS, DecoderPorts
from textspot_ray.wording import counted

# an invariant part without one of these only reshapes: moving it gains nothing
_ARITHMETIC = frozenset({"MatMul", "Convolution", "Tanh", "Einsum", "GroupConvolution"})


@dataclass(frozen=True, slots=True)
class SplitDecoder:
    """The recogniser's graphs as they are run.

    Attributes:
        encoder: 1 x 64 x 28 x 28 -> the encoder's output as [1, 784, 256], or what of it the
            decoder reads, then the step's invariant inputs.
        step: The decoder; its inputs are ``encoder_outputs``, ``prev_symbol``, ``prev_hidden`` in
            the ports' order where they remain, then the invariant inputs.
        encoded_used: Whether the step still reads ``encoder_outputs`` itself.
        invariants: Number of outputs that were moved out of the step.
        exponentials: Number of them that are passed as exp(2k), for an attention without tanh.
        note: What was done, for the log.

    With ``narrow``, the encoder's outputs and the step's inputs of 784 positions are bf16.
    """

    encoder: Any
    step: Any
    encoded_used: bool
    invariants: int
    exponentials: int
    note: str


def split_decoder(
    encoder: Any, decoder: Any, ports: DecoderPorts, *, narrow: bool = False
) -> SplitDecoder:
    """Move the decoder's step-independent part behind the encoder.

    Args:
        encoder: An ``openvino.Model`` that follows the contract.
        decoder: The same.
        ports: The decoder's ports.
        narrow: Pass them in bf16, for graphs that run in bf16: as f32 the 400,000 values would be
            converted at every step, a fifth of its time.
    """
    encoder, decoder = encoder.clone(), decoder.clone()
    sequence = _what_is_read(encoder, decoder, ports.encoded)
    if sequence is None:
        sequence = _as_sequence(encoder.outputs[0].get_node().input_value(0))
    step = decoder.clone()
    frontier = _frontier(step, ports.encoded)
    outputs, note = [sequence], "the decoder has no step-independent part"
    exponentials = 0
    parameters = list(step.get_parameters())
    if frontier:
        donor = decoder.clone()
        donated = _frontier(donor, ports.encoded)
        entry = donor.get_parameters()[ports.encoded].output(0)
        for target in entry.get_target_inputs():
            target.replace_source_output(sequence)
        for i, (output, known) in enumerate(zip(frontier, donated, strict=True)):
            parameter = ops.parameter(
                output.get_partial_shape(), output.get_element_type(), name=f"invariant_{i}"
            )
            parameter.output(0).set_names({f"invariant_{i}"})
            parameters.append(parameter)
            for target in output.get_target_inputs():
                target.replace_source_output(parameter.output(0))
            taken = take_exponential(parameter)
            outputs.append(exponential(known) if taken else known)
            exponentials += taken
        note = (
            f"moved {counted(len(frontier), 'step-independent result')} out of the decoder's step"
        )
        if exponentials:
            note += f", {exponentials} of them as what is left of its attention's tanh"
    encoded = step.get_parameters()[ports.encoded]
    used = bool(encoded.output(0).get_target_inputs())
    if not used:
        parameters.remove(encoded)
    results = [ops.result(output) for output in outputs]
    encoder = _named(ov.Model(results, encoder.get_parameters(), "encoder"))
    step = _named(ov.Model(step.get_results(), parameters, "decoder_step"))
    if narrow:
        first = len(parameters) - len(frontier)
        handed_over = [(1 + i, first + i) for i in range(len(frontier))]
        handed_over += [(0, ports.encoded)] if used else []
        narrowed = _narrowed(encoder, step, handed_over)
        encoder, step = _named(narrowed[0]), _named(narrowed[1])
    return SplitDecoder(
        encoder=encoder,
        step=step,
        encoded_used=used,
        invariants=len(frontier),
        exponentials=exponentials,
        note=note,
    )


def _narrowed(encoder: Any, step: Any, handed_over: list[tuple[int, int]]) -> tuple[Any, Any]:
    """The two models with bf16 for the outputs of the first that are inputs of the second."""
    out, into = ov.preprocess.PrePostProcessor(encoder), ov.preprocess.PrePostProcessor(step)
    for output, port in handed_over:
        if step.inputs[port].get_element_type() == ov.Type.f32:
            out.output(output).tensor().set_element_type(ov.Type.bf16)
            into.input(port).tensor().set_element_type(ov.Type.bf16)
    return out.build(), into.build()


def _named(model: Any) -> Any:
    """The model with names that are the same at every load in a process.

    OpenVINO numbers inserted nodes and tensors consecutively, and its cache of compiled models uses
    the names as key: it would miss, and store another copy, each time.
    """
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() != "Parameter":
            node.set_friendly_name(f"{node.get_type_name()}/{number}")
    for number, output in enumerate(model.outputs):
        output.get_tensor().set_names({f"{model.get_friendly_name()}/output/{number}"})
    return model


def _as_sequence(feature_map: Any) -> Any:
    """[N, 256, 28, 28] -> [N, 784, 256], positions row by row."""
    shape = ops.constant(np.array([0, ENCODED_CHANNELS, POSITIONS], np.int64))
    flat = ops.reshape(feature_map, shape, True)  # 0: as many as there are
    return ops.transpose(flat, ops.constant(np.array([0, 2, 1], np.int64))).output(0)


def _what_is_read(encoder: Any, decoder: Any, encoded: int) -> Any | None:
    """The encoder's columns instead of its map, where that repeats them and no more is read.

    A reader of W columns fills the contract's 28 x 28 map with copies of them, and its decoder
    reads the first W positions. Making the map and turning it into a sequence took a third of the
    encoder's time. The decoder's input becomes [N, W, 256].

    Returns:
        [N, W, 256], or None: the graphs are not like that.
    """
    source = encoder.outputs[0].get_node().input_value(0).get_node()
    if source.get_type_name() != "Reshape":
        return None
    repeated = source.input_value(0).get_node()
    if repeated.get_type_name() != "Broadcast":
        return None
    once = repeated.input_value(0)
    shape, whole = once.get_partial_shape(), repeated.output(0).get_partial_shape()
    if len(shape) != 4 or any(d.is_dynamic for d in (*list(shape)[1:], *list(whole)[1:])):
        return None
    columns = shape[3].get_length()
    sides = [ENCODED_CHANNELS, POSITIONS // columns, columns]
    if [d.get_length() for d in list(shape)[1:]] != [ENCODED_CHANNELS, 1, columns]:
        return None
    if [d.get_length() for d in list(whole)[1:]] != sides or POSITIONS % columns:
        return None
    parameter = decoder.get_parameters()[encoded]
    ends = [_end_of_slice(t.get_node()) for t in parameter.output(0).get_target_inputs()]
    if not ends or any(end is None or end > columns for end in ends):
        return None
    flat = ops.constant(np.array([0, ENCODED_CHANNELS, columns], np.int64))
    turned = ops.constant(np.array([0, 2, 1], np.int64))
    sequence = ops.transpose(ops.reshape(once, flat, True), turned).output(0)
    parameter.set_partial_shape(sequence.get_partial_shape())
    decoder.validate_nodes_and_infer_types()
    return sequence


def _end_of_slice(node: Any) -> int | None:
    """Where a slice of positions ends that begins at the first one; None for anything else."""
    if node.get_type_name() != "Slice" or len(node.input_values()) != 5:
        return None
    rest = [value.get_node() for value in node.input_values()[1:]]
    if any(c.get_type_name() != "Constant" or c.get_data().size != 1 for c in rest):
        return None
    start, stop, step, axis = (int(c.get_data().reshape(-1)[0]) for c in rest)
    return stop if (start, step, axis) == (0, 1, 1) and stop > 0 else None


def _frontier(model: Any, encoded: int) -> list[Any]:
    """Outputs that depend only on the encoded sequence and feed something that depends on more.

    In the model's topological order, so that two clones give the same list.
    """
    parameters = model.get_parameters()
    wanted = parameters[encoded].get_friendly_name()
    others = {p.get_friendly_name() for i, p in enumerate(parameters) if i != encoded}
    depends: dict[str, tuple[bool, bool, bool]] = {}  # on encoded, on others, has arithmetic
    ordered = model.get_ordered_ops()
    for node in ordered:
        name = node.get_friendly_name()
        on_encoded, on_others, heavy = name == wanted, name in others, False
        for source in node.input_values():
            e, o, h = depends[source.get_node().get_friendly_name()]
            on_encoded, on_others, heavy = on_encoded or e, on_others or o, heavy or h
        heavy = heavy or (on_encoded and node.get_type_name() in _ARITHMETIC)
        depends[name] = (on_encoded, on_others, heavy)
    found = []
    for node in ordered:
        on_encoded, on_others, heavy = depends[node.get_friendly_name()]
        if not on_encoded or on_others or not heavy or node.get_type_name() == "Result":
            continue
        for output in node.outputs():
            consumers = [t.get_node().get_friendly_name() for t in output.get_target_inputs()]
            if any(depends[c][1] for c in consumers):
                found.append(output)
    return found


# exp(2 x 40) and its inverse are finite in f32 and bf16, so 0 x infinity cannot happen; their
# products may overflow or vanish, which gives the tanh's own limits. Only sums of two values that
# are beyond 40 and cancel to within 9 would come out wrong: |q| is bounded by the sum of a row's
# weights (the state is within -1 and 1) and far below.
_LARGEST = 40.0


def take_exponential(invariant: Any) -> bool:
    """Rewrite the step so that its input k becomes exp(2k), if k is used only by one tanh(k + q).

    Args:
        invariant: The parameter that stands for k; its type is f32.

    Returns:
        Whether the step was rewritten; `exponential` of k must then be fed to it.
    """
    total = _only_consumer(invariant, "Add")
    tanh = None if total is None else _only_consumer(total, "Tanh")
    if total is None or tanh is None or invariant.get_element_type() != ov.Type.f32:
        return False
    known = invariant.get_friendly_name()
    queries = [v for v in total.input_values() if v.get_node().get_friendly_name() != known]
    if len(queries) != 1:  # k + k
        return False
    product = ops.multiply(invariant.output(0), exponential(queries[0]))
    rest = ops.divide(_constant(2.0), ops.add(product, _constant(1.0)))
    result = ops.subtract(_constant(1.0), rest).output(0)
    for target in tanh.output(0).get_target_inputs():
        target.replace_source_output(result)
    return True


def exponential(value: Any) -> Any:
    """The output exp(2 value), clamped to what f32 and bf16 can represent."""
    held = ops.clamp(value, -_LARGEST, _LARGEST)
    return ops.exp(ops.multiply(held, _constant(2.0))).output(0)


def _only_consumer(node: Any, kind: str) -> Any | None:
    """The consumer of the node's output, if it is a single node of that kind."""
    targets = list(node.output(0).get_target_inputs())
    if len(targets) != 1:
        return None
    consumer = targets[0].get_node()
    return consumer if consumer.get_type_name() == kind else None


def _constant(value: float) -> Any:
    return ops.constant(np.array(value, np.float32))
