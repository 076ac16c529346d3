"""onnx: models: equal to the torch model they were exported from and to ONNX's reference, and what is refused."""

from __future__ import annotations

import importlib
import time
import warnings

import pytest
import torch
from torch import nn

from embattle.embedders import load
from embattle.embedders.onnx_operators import to_torch
from embattle.errors import ConfigError, MissingDependency, ModelError

SIDE = 16


class Normalised(nn.Module):
    """Tokens, attention, GELU and a division by the length: what exporters make of embedding models."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 8))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return nn.functional.normalize(self.mlp(tokens).mean(1))


class Pair(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x), self.second(x)


def convolutional():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6),
    )  # fmt: skip
    net(torch.rand(8, 3, SIDE, SIDE))  # batch-norm sees pictures
    return net


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5))


MODELS = {"convolutional": convolutional, "attention": Normalised, "linear": linear}


def exported(module, path, *, exporter="new", opset=None, batch="n", inputs=None):
    """Written by one of torch's two exporters."""
    module = module.eval()
    x = inputs if inputs is not None else torch.rand(2, 3, SIDE, SIDE)
    options = {} if opset is None else {"opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "new":
            axes = ({0: torch.export.Dim("n")},) if batch else None
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=axes, verbose=False, **options)
        else:
            axes = {"x": {0: "n"}} if batch else None
            torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes, **options)
    return f"onnx:{path}"


@pytest.fixture
def small(onnx, tmp_path):
    """A linear model's file, and the model."""
    torch.manual_seed(5)
    module = linear().eval()
    return tmp_path / "m.onnx", module, exported(module, tmp_path / "m.onnx", exporter="old")


@pytest.mark.parametrize(("exporter", "opset"), [("old", 14), ("old", 17), ("old", 20), ("new", 18), ("new", None)])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_it_was_exported_from(onnx, tmp_path, name, exporter, opset):
    torch.manual_seed(5)
    module = MODELS[name]().eval()
    member = load(exported(module, tmp_path / "m.onnx", exporter=exporter, opset=opset))
    assert (member.name, member.size, member.channels, member.mean) == ("onnx (m)", (SIDE, SIDE), 3, None)
    x = torch.rand(5, 3, SIDE, SIDE)
    torch.testing.assert_close(member(x).detach(), module(x).detach(), atol=1e-5, rtol=1e-4)
    # The gradient is the original's as well.
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn_like(module(x))
    (found,) = torch.autograd.grad((member(ours) * weights).sum(), ours)
    (expected,) = torch.autograd.grad((module(theirs) * weights).sum(), theirs)
    assert expected.abs().max() > 1e-5
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()) + 1e-7, rtol=1e-3)


def test_timm_and_transformers_models_survive_the_export(onnx, timm, transformers, tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.ViTModel(transformers.ViTConfig(**small, image_size=SIDE, patch_size=8))

        def forward(self, x):
            return self.model(pixel_values=x).pooler_output

    torch.manual_seed(5)
    for module, side in ((Pooled(), SIDE), (timm.create_model("test_convnext", num_classes=0), 64)):
        x = torch.rand(2, 3, side, side)
        member = load(exported(module, tmp_path / "m.onnx", exporter="old", opset=17, inputs=x))
        with torch.no_grad():
            torch.testing.assert_close(member(x), module.eval()(x), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"])
@pytest.mark.parametrize(("axes", "keep", "skip"), [([2, 3], 1, 0), ([-1], 0, 0), (None, 1, 0), (None, 1, 1)])
def test_reductions_are_those_of_onnxs_reference(onnx, operator, axes, keep, skip):
    reference = importlib.import_module("onnx.reference")
    helper = onnx.helper
    inputs = ["x"] if axes is None else ["x", "axes"]
    known = [] if axes is None else [helper.make_tensor("axes", 7, [len(axes)], axes)]
    node = helper.make_node(operator, inputs, ["z"], keepdims=keep, noop_with_empty_axes=skip)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 4, 5])],
        [helper.make_tensor_value_info("z", 1, None)],
        known,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    x = torch.randn(2, 3, 4, 5)
    if skip and operator in ("ReduceL2", "ReduceSumSquare"):
        return  # what is skipped, the reduction or the square as well, the standard's versions and runtimes disagree on
    (expected,) = reference.ReferenceEvaluator(proto).run(None, {"x": x.numpy()})
    torch.testing.assert_close(to_torch(proto)(x), torch.as_tensor(expected), atol=1e-5, rtol=1e-5)


def test_of_several_outputs_the_first_is_the_embedding(onnx, tmp_path):
    first, second = linear(), nn.Conv2d(3, 4, 3)
    member = load(exported(Pair(first, second), tmp_path / "m.onnx"))
    x = torch.rand(3, 3, SIDE, SIDE)
    torch.testing.assert_close(member(x), first(x))
    assert not [name for name, _ in member.module.named_modules() if "Conv" in name], "the other output is computed as well"
    with pytest.raises(ModelError, match=r"its first output is a tensor of shape \(2, 4, 14, 14\) for 2 pictures"):
        load(exported(Pair(second, first), tmp_path / "n.onnx"))


def test_preprocessing_is_what_the_user_says(small):
    _, module, spec = small
    member = load(spec, mean=(0.5,) * 3, std=(0.25,) * 3, similarity="euclidean")
    assert member.similarity.name == "euclidean"
    x = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(member(x), module((x - 0.5) / 0.25))
    assert load(spec, size=SIDE, channels=3).size == (SIDE, SIDE)
    with pytest.raises(ConfigError, match="size 24 does not fit: the graph takes pictures of 16x16"):
        load(spec, size=24)
    with pytest.raises(ConfigError, match="channels 1 does not fit: the graph takes 3"):
        load(spec, channels=1)


def test_weights_in_another_file_of_the_folder_are_read(onnx, tmp_path, small):
    path, module, _ = small
    proto = onnx.load(path)
    onnx.save_model(proto, tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    assert (tmp_path / "e.data").stat().st_size > 1000
    x = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(load(f"onnx:{tmp_path / 'e.onnx'}")(x), module(x))
    (tmp_path / "e.data").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"onnx:.*e\.onnx"):
        load(f"onnx:{tmp_path / 'e.onnx'}")


@pytest.mark.parametrize("location", ["../outside.data", "{absolute}", "link.data", "missing.data", "", "\0"])
def test_weights_outside_the_folder_are_not_read(onnx, tmp_path, small, location):
    path, _, _ = small
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(3 * SIDE * SIDE * 5 * 4))
    (home / "link.data").symlink_to(tmp_path / "outside.data")
    proto = onnx.load(path)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = 1
    weight.external_data.add(key="location", value=location.format(absolute=tmp_path / "outside.data"))
    (home / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"which is no file in its own folder"):
        load(f"onnx:{home / 'm.onnx'}")


def elsewhere(tensor, *entries):
    """Moves a tensor's numbers to where the entries say."""
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in entries:
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("key", ["location", "offset", "length", "basepath"])
def test_weights_that_are_said_to_lie_in_two_places_are_refused(onnx, tmp_path, small, key):
    # onnx takes the last entry; what looks at the first one would let the other pass.
    path, _, _ = small
    home = tmp_path / "home"
    home.mkdir()
    for place in (tmp_path, home):
        (place / "w.data").write_bytes(bytes(3 * SIDE * SIDE * 5 * 4))
    proto = onnx.load(path)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    first, last = ("w.data", "../w.data") if key == "location" else ("0", "4")
    elsewhere(weight, (key, first), (key, last), *([] if key == "location" else [("location", "w.data")]))
    (home / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"says twice where the weights .* lie"):
        load(f"onnx:{home / 'm.onnx'}")


def in_function(onnx, tensor, where):
    """A model that adds `tensor` to its picture, inside a function of its own."""
    helper, value = onnx.helper, onnx.helper.make_tensor_value_info
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    add = [helper.make_node("Add", ["x", "w"], ["s"]), helper.make_node("Flatten", ["s"], ["z"])]
    nodes, attributes = [constant, *add], []
    if where == "default":
        nodes[0] = helper.make_node("Constant", [], ["w"])
        nodes[0].attribute.add(name="value", ref_attr_name="v", type=4)
        attributes = [helper.make_attribute("v", tensor)]
    elif where in ("sub-graph", "initializer"):
        made, known = ([], [tensor]) if where == "initializer" else ([constant], [])
        inner = helper.make_graph(
            [*made, helper.make_node("Identity", ["w"], ["i"])], "i", [], [value("i", 1, None)], known
        )
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", 9, [], [True]))
        nodes = [yes, helper.make_node("If", ["yes"], ["w"], then_branch=inner, else_branch=inner), *add]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", ["x"], ["z"], nodes, opsets[:1], attribute_protos=attributes)
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["z"], domain="own")],
        "g",
        [value("x", 1, ["n", 3, 4, 4])],
        [value("z", 1, ["n", 48])],
    )
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


@pytest.mark.parametrize("where", ["node", "default", "sub-graph", "initializer"])
def test_weights_outside_the_folder_are_not_read_into_functions(onnx, tmp_path, monkeypatch, where):
    home = tmp_path / "home"
    home.mkdir()
    numbers = torch.arange(48.0).reshape(1, 3, 4, 4)
    for place, factor in ((home, 1), (tmp_path, 2)):
        (place / "w.data").write_bytes((factor * numbers).numpy().tobytes())
    # What is read by a name alone would come from the working folder.
    monkeypatch.chdir(tmp_path)

    def spec(location):
        tensor = elsewhere(onnx.numpy_helper.from_array(numbers.numpy(), "w"), ("location", location))
        (home / "m.onnx").write_bytes(in_function(onnx, tensor, where).SerializeToString())
        return f"onnx:{home / 'm.onnx'}"

    with pytest.raises(ModelError, match=r"weights from '../w.data', which is no file in its own folder"):
        load(spec("../w.data"))
    if where == "node":  # branches have no converter, defaults of functions no inliner
        x = torch.rand(2, 3, 4, 4)
        torch.testing.assert_close(load(spec("w.data"))(x), (x + numbers).flatten(1))
    else:
        with pytest.raises(ModelError, match=r"cannot be converted|could not be converted"):
            load(spec("w.data"))


def test_a_graph_of_absurd_pictures_is_refused(onnx, tmp_path):
    helper, value = onnx.helper, onnx.helper.make_tensor_value_info
    nodes = [helper.make_node("ReduceMax", ["x"], ["z"], axes=[2, 3], keepdims=0)]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n", 3, 10**6, 10**6])], [value("z", 1, ["n", 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="1000000x1000000; pictures of at most 2048 pixels a side"):
        load(f"onnx:{tmp_path / 'm.onnx'}")


def test_names_in_a_file_do_not_become_code(onnx, tmp_path, small):
    path, module, _ = small
    proto = onnx.load(path)
    marker = tmp_path / "executed"
    for node in proto.graph.node:
        node.name = f'x"), open({str(marker)!r}, "w").close(), ("'
    path.write_bytes(proto.SerializeToString())
    x = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(load(f"onnx:{path}")(x), module(x))
    assert not marker.exists()


def test_operators_without_gradients_are_named(onnx, tmp_path, small):
    path, _, _ = small
    proto = onnx.load(path)
    proto.graph.node[-1].op_type = "MatMulInteger"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="no valid ONNX model"):
        load(f"onnx:{path}")
    helper = onnx.helper
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Hardmax", ["f"], ["z"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n", 3, 4, 4])], [value("z", 1, ["n", 48])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(
        ModelError, match=r"its operator\(s\) Hardmax-17 cannot be converted.*as module:package.module:factory"
    ):
        load(f"onnx:{path}")


def test_a_conversion_that_computes_something_else_is_refused(small, monkeypatch):
    from embattle.embedders.adapters import onnx_file

    right = onnx_file.to_torch

    class Slightly(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x) * 1.01

    monkeypatch.setattr(onnx_file, "to_torch", lambda proto: Slightly(right(proto)))
    with pytest.raises(ModelError, match="computes something else than ONNX's own reference"):
        load(small[2])


@pytest.mark.parametrize("exporter", ["old", "new"])
def test_a_fixed_number_of_pictures_is_refused(onnx, tmp_path, exporter):
    spec = exported(linear(), tmp_path / "m.onnx", exporter=exporter, batch=None, inputs=torch.rand(1, 3, SIDE, SIDE))
    with pytest.raises(ModelError, match=r"with a fixed number of 1 picture\(s\).*dynamic_shapes"):
        load(spec)


@pytest.mark.parametrize(
    ("kind", "shape", "sentence"),
    [
        (1, ["n", 4, 4, 3], r"its input is \?x4x4x3; a model of pictures takes \(n, C, H, W\)"),
        (1, ["n", 48], r"its input is \?x48"),
        (2, ["n", 3, 4, 4], "holds no 32-bit floats"),
        (1, ["n", 3, "h", 4], None),
    ],
)
def test_inputs_that_are_no_pictures_are_refused(onnx, tmp_path, kind, shape, sentence):
    helper, path = onnx.helper, tmp_path / "m.onnx"
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=1),
        helper.make_node("ReduceMax", ["c"], ["r"], axes=[2, 3], keepdims=0),
    ]
    if len(shape) == 2:
        nodes = [helper.make_node("Identity", ["x"], ["r"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", kind, shape)], [value("r", 1, ["n", "d"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    if sentence is None:
        member = load(f"onnx:{path}")
        assert member.size is None
        x = torch.rand(2, 3, 9, 7)
        torch.testing.assert_close(member(x), x.amax((2, 3)))
        assert load(f"onnx:{path}", size=12).size == (12, 12)
        return
    with pytest.raises(ModelError, match=sentence):
        load(f"onnx:{path}")


def test_two_inputs_are_refused(onnx, tmp_path):
    helper, value = onnx.helper, onnx.helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    graph = helper.make_graph(nodes, "g", [value(name, 1, ["n", 3, 4, 4]) for name in "xy"], [value("z", 1, ["n", "d"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"the graph has 2 inputs \(x, y\); a model of pictures has one"):
        load(f"onnx:{tmp_path / 'm.onnx'}")


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x08\x07" + bytes(50), None])
def test_damaged_files_are_named(small, content):
    path, _, spec = small
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ModelError, match=r"onnx:.*m\.onnx: the file is no (valid )?ONNX model"):
        load(spec)


def test_without_onnx2torch_the_extra_is_named(small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx2torch", None)
    with pytest.raises(MissingDependency, match=r"pip install 'embattle\[onnx\]'"):
        load(small[2])


def test_functions_that_double_at_every_level_are_refused_at_once(onnx, tmp_path):
    """A kilobyte that stands for 2^30 operations."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    names = [f"f{level}" for level in range(30)]
    functions = []
    for level, name in enumerate(names):
        call = (
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("Neg", ["a"], ["y"]),
        )
        if level:
            below = names[level - 1]
            call = (
                helper.make_node(below, ["x"], ["a"], domain="own"),
                helper.make_node(below, ["a"], ["y"], domain="own"),
            )
        functions.append(helper.make_function("own", name, ["x"], ["y"], call, opsets))
    graph = helper.make_graph(
        [helper.make_node(names[-1], ["x"], ["z"], domain="own"), helper.make_node("Flatten", ["z"], ["out"])],
        "bomb",
        [helper.make_tensor_value_info("x", float32, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("out", float32, ["n", 192])],
    )
    path = tmp_path / "bomb.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9), path)
    assert path.stat().st_size < 5_000
    started = time.perf_counter()
    with pytest.raises(ModelError, match="operations"):
        load(f"onnx:{path}")
    assert time.perf_counter() - started < 5
