"""The walls of the house: imports go down, modules stay small, names are exported on purpose."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embattle

SOURCE = Path(embattle.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Lower numbers are imported by higher ones only; two packages of one layer never import each other.
LAYERS = [
    {"errors", "registry", "allocator", "records", "report"},
    {"rng", "similarity", "budget", "ranking", "vectors", "closer", "images", "networks", "runs"},
    {"embedders", "index", "metrics", "data"},
    {"attacks", "systems", "training"},
    {"defenses", "detectors", "scenarios"},
    {"audit", "protocols", "testset"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Files of one layer that are a vocabulary rather than a package may use each other, as long as there is no circle.
VOCABULARY = {"errors", "registry", "rng", "similarity", "budget", "ranking", "vectors", "closer"}
# report reads the records it renders; both are layer 0 and free of torch.
SAME_LAYER = {("report", "records"), ("report", "errors"), ("records", "errors")}


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative import; write the absolute one")
        if isinstance(node, ast.ImportFrom) and node.module == "embattle":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embattle."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("embattle.")}
    return found - {"__version__"}


def violations(name: str, uses: set[str]) -> list[str]:
    wrong = []
    for other in sorted(uses - {name}):
        if other not in LEVEL:
            wrong.append(f"{name} imports {other}, which has no layer")
        elif LEVEL[other] > LEVEL[name]:
            wrong.append(f"{name} (layer {LEVEL[name]}) imports {other} (layer {LEVEL[other]})")
        elif LEVEL[other] == LEVEL[name] and other not in VOCABULARY and (name, other) not in SAME_LAYER:
            wrong.append(f"{name} imports {other} of its own layer")
    return wrong


def test_every_package_has_a_layer() -> None:
    assert {part(path) for path in MODULES} - {"__init__", "__main__"} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_go_down(path: Path) -> None:
    if path == SOURCE / "__main__.py":
        assert imported(path) == {"cli"}
    elif path == SOURCE / "__init__.py":
        assert not imported(path), "embattle/__init__.py loads names lazily"
    else:
        assert violations(part(path), imported(path)) == []


def test_the_layer_rule_can_fail() -> None:
    assert violations("attacks", {"audit"})
    assert violations("metrics", {"index"})
    assert not violations("attacks", {"rng"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert length <= 60, f"{node.name} has {length} lines"


def test_file_names_explain_themselves() -> None:
    vague = {"util", "utils", "common", "helper", "helpers", "misc"}
    assert not [path for path in MODULES if path.stem in vague or path.parent.name in vague]


def test_no_text_holds_the_marks_of_a_conflict() -> None:
    root = SOURCE.parents[1]
    kinds = (".py", ".md", ".json", ".csv", ".toml", ".yml", ".j2", ".css", ".txt")
    texts = [
        path for top in ("src", "tests", "docs", "results", "benchmarks", "examples") for path in (root / top).rglob("*")
    ]
    texts += list(root.glob("*"))
    marked = re.compile(rb"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
    assert marked.search(b"one\n<<<<<<< HEAD\n"), "a search that finds nothing proves nothing"
    found = [path for path in texts if path.is_file() and path.suffix in kinds and marked.search(path.read_bytes())]
    assert found == []


def test_no_unfinished_marks() -> None:
    marks = ("TODO", "FIXME", "XXX", "raise NotImplementedError")
    assert not [(path.name, mark) for path in MODULES for mark in marks if mark in path.read_text(encoding="utf-8")]


def packages() -> list[str]:
    return ["embattle", *sorted(f"embattle.{path.parent.name}" for path in SOURCE.glob("*/__init__.py"))]


@pytest.mark.parametrize("name", packages())
def test_exported_names_exist_and_are_sorted(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(exported, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for public in exported:
        assert getattr(module, public) is not None


def test_design_names_are_at_the_top() -> None:
    wanted = {
        "Embedder", "Cosine", "Euclidean", "Linf", "L2", "attacks", "objectives", "index", "metrics", "audit", "report",
        "AttackResult", "IMAGENET_MEAN", "IMAGENET_STD",
    }  # fmt: skip
    assert wanted <= set(embattle.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = embattle.nothing


PUBLIC = [
    (path, node)
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
]


def test_public_parts_have_docstrings() -> None:
    missing = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} has no docstring"
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{path.name}: {node.name}")
    assert missing == []


@pytest.mark.parametrize(
    "statement", ["import embattle", "import embattle.report", "import embattle.records", "import embattle.cli"]
)
def test_light_imports_do_not_load_torch(statement: str) -> None:
    check = f"{statement}; import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
