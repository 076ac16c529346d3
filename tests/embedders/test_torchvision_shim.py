"""torchvision can be imported in a fresh process, with whatever build is installed, and stays what it is where it works."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from embattle.embedders import torchvision_shim

FRESH = """
from embattle.embedders.torchvision_shim import make_torchvision_importable
make_torchvision_importable()
make_torchvision_importable()
import torchvision, {library}
print(torchvision.__version__)
"""


@pytest.mark.parametrize("library", ["timm", "onnx2torch", "transformers.models.vit.modeling_vit"])
def test_libraries_that_import_torchvision_can_be_imported(library):
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(library=library)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_nothing_happens_without_torchvision(monkeypatch):
    monkeypatch.setattr(torchvision_shim.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torchvision_shim.importlib, "import_module", lambda name: pytest.fail("imported"))
    torchvision_shim.make_torchvision_importable()


def test_a_failed_import_gets_its_operators_and_is_tried_again(monkeypatch):
    tried = []

    def importing(name):
        tried.append(name)
        if len(tried) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")

    class Library:
        def __init__(self, name, kind):
            self.operators = [name, kind]

        def define(self, operator):
            self.operators.append(operator.partition("(")[0])

    declared = []
    monkeypatch.setattr(torchvision_shim.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torchvision_shim.importlib, "import_module", importing)
    monkeypatch.setattr(torchvision_shim, "_declared", declared)
    monkeypatch.setattr(torch.library, "Library", Library)
    torchvision_shim.make_torchvision_importable()
    assert tried == ["torchvision", "torchvision"]
    assert [library.operators for library in declared] == [["torchvision", "DEF", "nms", "qnms"]]


def test_other_failures_are_not_hidden(monkeypatch):
    def importing(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_shim.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torchvision_shim.importlib, "import_module", importing)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_shim.make_torchvision_importable()


def test_a_users_factory_may_import_timm(tmp_path):
    (tmp_path / "shop_model.py").write_text(
        "import timm\nimport torch\n\ndef build():\n    assert timm.__version__\n    return torch.nn.Flatten()\n"
    )
    code = "from embattle import embedders; print(embedders.load('module:shop_model:build', channels=1).name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "build"
