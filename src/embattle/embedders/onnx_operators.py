"""From an ONNX graph to a torch module with gradients: onnx2torch, and the operator versions that it does not have yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embattle.errors import ModelError

# Later versions of these operators only admit more number types, up to opset 25.
_RETYPED = (
    "Cast", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Dropout", "Elu", "Equal", "Flatten",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "MaxPool",
    "Reshape", "Round", "Selu", "Shape", "Sin", "Softplus", "Softsign", "Squeeze", "Tan", "TopK", "Transpose", "Unsqueeze",
)  # fmt: skip
# These gained an attribute or an input as well; without it they are what they were.
_GAINED = {"AveragePool": ("dilations", 1), "Split": ("num_outputs", 2), "Pad": ("axes", 3)}
_LAST_OPSET = 25
_OURS = "embattle"
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": lambda x, dim, keepdim: x.square().sum(dim, keepdim=keepdim).sqrt(),
    "ReduceSumSquare": lambda x, dim, keepdim: x.square().sum(dim, keepdim=keepdim),
}


def to_torch(proto: Any) -> nn.Module:
    """The torch module of a graph.

    Args:
        proto: an `onnx.ModelProto` with one output.

    Raises:
        ModelError: operators without a converter; the message names them.
    """
    library: Any = importlib.import_module("onnx2torch")
    _complete(importlib.import_module("onnx").defs)
    unknown = sorted({name for node in proto.graph.node if (name := _unknown(proto, node))})
    if unknown:
        raise ModelError(
            f"its operator(s) {', '.join(unknown)} cannot be converted to torch, so there are no gradients for white-box "
            f"attacks; give the model the file was exported from as module:package.module:factory"
        )
    module: Any = library.convert(_simplified(proto))
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()  # type: ignore[no-any-return]


def _simplified(proto: Any) -> Any:
    """An equal graph without four things that exporters write and the converter refuses."""
    # Before operators change their names: later ones want to know the shapes between them.
    simple = importlib.import_module("onnx.shape_inference").infer_shapes(proto)
    simple.opset_import.add(domain=_OURS, version=1)
    weights = {tensor.name for tensor in simple.graph.initializer}
    # Equal weights are stored once and named again by Identity.
    same = {node.output[0]: node.input[0] for node in simple.graph.node if node.op_type == "Identity"}
    same = {alias: name for alias, name in same.items() if name in weights}
    kept = [node for node in simple.graph.node if not node.output or node.output[0] not in same]
    for node in kept:
        names = [same.get(name, name) for name in node.input]
        # Optional inputs at the end may be left out or named "".
        while names and not names[-1]:
            names.pop()
        node.input[:] = names
        if node.op_type == "Reshape":
            # It decides what a 0 means in a shape without elements, which no batch of pictures has.
            settings = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(settings)
        if node.op_type == "LayerNormalization" and len(node.output) == 1:
            # The converter's own takes its shape from inference, which does not always find one.
            node.domain = _OURS
    del simple.graph.node[:]
    simple.graph.node.extend(kept)
    return simple


def _unknown(proto: Any, node: Any) -> str | None:
    """The operator's name and version if it cannot be converted."""
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    version = opsets.get(node.domain, 0)
    attribute, inputs = _GAINED.get(node.op_type, ("", len(node.input)))
    if len(node.input) > inputs or any(found.name == attribute for found in node.attribute):
        return f"{node.op_type} with {attribute}"
    if version <= _LAST_OPSET and _has(node.op_type, version, node.domain):
        return None
    return f"{node.domain}.{node.op_type}-{version}".lstrip(".")


def _has(operator: str, version: int, domain: str = "") -> bool:
    registry: Any = importlib.import_module("onnx2torch.node_converters.registry")
    try:
        registry.get_converter(operator, version, domain)
    except RuntimeError:  # of the kind that means "there is none"
        return False
    return True


def _complete(schemas: Any) -> None:
    """Registers the operator versions that exporters write today and the converter does not have, once."""
    registry: Any = importlib.import_module("onnx2torch.node_converters.registry")
    for operator in (*_RETYPED, *_GAINED):
        earlier = None
        for version in range(1, _LAST_OPSET + 1):
            if _has(operator, version):
                earlier = registry.get_converter(operator, version)
            elif earlier is not None and _begins(schemas, operator, version):
                registry.add_converter(operator, version)(earlier)
    for operator in _REDUCTIONS:
        for version in range(18, _LAST_OPSET + 1):
            if _begins(schemas, operator, version) and not _has(operator, version):
                registry.add_converter(operator, version)(_convert_reduction)
    if not _has("Gelu", 20):
        registry.add_converter("Gelu", 20)(_convert_gelu)
    if not _has("LayerNormalization", 1, _OURS):
        registry.add_converter("LayerNormalization", 1, _OURS)(_convert_layer_norm)


def _begins(schemas: Any, operator: str, version: int) -> bool:
    try:
        return bool(schemas.get_schema(operator, version).since_version == version)
    except schemas.SchemaError:
        return False


class _Reduction(nn.Module):
    """A reduction whose axes are an input of the graph, as from opset 18 on."""

    def __init__(self, operator: str, keep: bool, skip_without_axes: bool) -> None:
        super().__init__()
        self.operator, self.keep, self.skip = operator, keep, skip_without_axes

    def extra_repr(self) -> str:
        return f"{self.operator}, keep={self.keep}, skip_without_axes={self.skip}"

    def forward(self, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = [] if axes is None else [int(axis) for axis in axes.tolist()]
        if not found and self.skip:
            return x
        return _REDUCTIONS[self.operator](x, dim=found or list(range(x.ndim)), keepdim=self.keep)


def _convert_reduction(node: Any, graph: Any) -> Any:
    utils: Any = importlib.import_module("onnx2torch.utils.common")
    keep, skip = node.attributes.get("keepdims", 1), node.attributes.get("noop_with_empty_axes", 0)
    module = _Reduction(node.operation_type, bool(keep), bool(skip))
    return utils.OperationConverterResult(torch_module=module, onnx_mapping=utils.onnx_mapping_from_node(node))


def _convert_gelu(node: Any, graph: Any) -> Any:
    utils: Any = importlib.import_module("onnx2torch.utils.common")
    module = nn.GELU(approximate=node.attributes.get("approximate", "none"))
    return utils.OperationConverterResult(torch_module=module, onnx_mapping=utils.onnx_mapping_from_node(node))


class _LayerNorm(nn.Module):
    """Layer normalisation over the axes from `axis` on."""

    def __init__(self, axis: int, eps: float) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps

    def extra_repr(self) -> str:
        return f"axis={self.axis}, eps={self.eps}"

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = list(x.shape[self.axis :])
        return F.layer_norm(x, shape, weight.expand(shape), None if bias is None else bias.expand(shape), self.eps)


def _convert_layer_norm(node: Any, graph: Any) -> Any:
    utils: Any = importlib.import_module("onnx2torch.utils.common")
    module = _LayerNorm(node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5))
    return utils.OperationConverterResult(torch_module=module, onnx_mapping=utils.onnx_mapping_from_node(node))
