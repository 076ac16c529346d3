"""ONNX files read as hostile input: data that stays in its folder, one picture input, one output, harmless names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embattle.embedders.preparation import LARGEST_SIDE
from embattle.embedders.weight_files import within
from embattle.errors import ModelError

_HOW = "torch.onnx.export(model, (x,), PATH, dynamic_shapes=({0: torch.export.Dim('n')},))"
_FLOAT = 1
# Operations of the largest models of pictures are some thousands.
_MOST_NODES = 50_000
_INSIDE, _EXTERNAL = 0, 1


@dataclass(frozen=True, kw_only=True)
class PictureGraph:
    """A graph from pictures to embeddings: its protocol buffer, and what its input says of the pictures.

    `channels`, `height` and `width` are None where the graph leaves them open.
    """

    proto: Any
    input_name: str
    channels: int | None
    height: int | None
    width: int | None


def read_graph(path: Path) -> PictureGraph:
    """Reads and checks a file; nothing in it is executed.

    Raises:
        ModelError: no such file, damaged, data outside its folder, or an input that is not a batch of float pictures.
    """
    if not path.is_file():
        raise ModelError(f"there is no such file; write one with {_HOW}")
    onnx: Any = importlib.import_module("onnx")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's own exception, which moves between its versions
        raise ModelError("the file is no ONNX model; it may be cut off or damaged") from error
    _check_growth(proto)
    _load_external(proto, path.parent)
    # Checked after its data is there: the checker looks at files by itself.
    try:
        onnx.checker.check_model(proto)
        if proto.functions:
            proto = importlib.import_module("onnx.inliner").inline_local_functions(proto)
    except Exception as error:  # as above
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the file is no valid ONNX model ({reason})") from error
    # Names become Python code when a graph is converted; these are what the file's author wrote.
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    # The embedding is the first output; what only the others need is not computed.
    del proto.graph.output[1:]
    return _with_picture_input(proto)


def _check_growth(proto: Any) -> None:
    """Refuses functions that call functions that call functions: a small file can stand for more nodes than fit anywhere.

    Raises:
        ModelError: more nodes than a model of pictures has, or a function that calls itself.
    """
    bodies = {(function.domain, function.name): function.node for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, callers: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            inner = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
            total += sum(size(graph.node, callers) for graph in inner)
            key = (node.domain, node.op_type)
            if key not in bodies:
                total += 1
                continue
            if key in callers:
                raise ModelError(f"its function {node.op_type!r} calls itself, which ONNX does not allow")
            if key not in sizes:
                sizes[key] = size(bodies[key], callers | {key})
            total += sizes[key]
        return total

    found = size(proto.graph.node, frozenset())
    if found > _MOST_NODES:
        raise ModelError(
            f"its functions stand for {found:,} operations, and {_MOST_NODES:,} are understood at most; export the model "
            f"without functions: {_HOW}"
        )


def _with_picture_input(proto: Any) -> PictureGraph:
    known = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in known]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise ModelError(
            f"the graph has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}); a model of pictures has one"
        )
    kind = inputs[0].type.tensor_type
    sizes = [(axis.dim_value or None) if axis.HasField("dim_value") else None for axis in kind.shape.dim]
    shape = "x".join(str(size or "?") for size in sizes)
    if kind.elem_type != _FLOAT:
        raise ModelError(
            f"its input holds no 32-bit floats (ONNX type {kind.elem_type}); export the model from the float pixels on"
        )
    if len(sizes) != 4 or sizes[1] not in (1, 3, None):
        raise ModelError(f"its input is {shape}; a model of pictures takes (n, C, H, W) with 1 or 3 channels")
    if max(sizes[2] or 1, sizes[3] or 1) > LARGEST_SIDE:
        raise ModelError(f"its input is {shape}; pictures of at most {LARGEST_SIDE} pixels a side are understood")
    if sizes[0] is not None:
        raise ModelError(
            f"its input is {shape}, with a fixed number of {sizes[0]} picture(s) at a time; export it with an open first "
            f"axis: {_HOW}"
        )
    return PictureGraph(proto=proto, input_name=inputs[0].name, channels=sizes[1], height=sizes[2], width=sizes[3])


def _load_external(proto: Any, folder: Path) -> None:
    """Loads weights that lie in other files, which must lie in the model's folder."""
    external = [tensor for tensor in _tensors(proto) if tensor.data_location == _EXTERNAL]
    for tensor in external:
        told = {entry.key: entry.value for entry in tensor.external_data}
        if len(told) < len(tensor.external_data):
            raise ModelError(
                f"it says twice where the weights {tensor.name!r} lie, and readers differ in which they take; export "
                f"the model again"
            )
        location = told.get("location", "")
        if not within(folder, location):
            raise ModelError(f"it wants weights from {location!r}, which is no file in its own folder; put that file there")
    helper: Any = importlib.import_module("onnx.external_data_helper")
    try:
        # One by one: what onnx would not walk to, it would later read from the working folder.
        for tensor in external:
            helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = _INSIDE
            del tensor.external_data[:]
    except Exception as error:  # the helper's exceptions differ from version to version
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"its weights, which lie in another file, cannot be read: {reason}") from error


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a protocol buffer, wherever it lies: in functions, their defaults, sub-graphs, sparse tensors."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in (value,) if hasattr(value, "ListFields") else value:
            if field.message_type.name == "TensorProto":
                yield inner
            else:
                yield from _tensors(inner)
