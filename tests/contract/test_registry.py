"""Registries find parts by themselves and answer a wrong name with the nearest right ones."""

from __future__ import annotations

import sys

import pytest

from embattle.attacks import ATTACKS, OBJECTIVES, UPDATES
from embattle.embedders import ADAPTERS
from embattle.errors import ConfigError
from embattle.networks import NETWORKS
from embattle.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose one registry is filled by a file that nothing imports."""
    folder = tmp_path / "parts_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from embattle.registry import Registry\nPARTS = Registry('part', 'parts_for_tests')\n"
    )
    (folder / "later.py").write_text(
        "from parts_for_tests import PARTS\n\n"
        "@PARTS.register('zeta', paper='Nobody 2020, section 1', access='none', differs='in all')\n"
        "def zeta():\n    'Does nothing.\\n\\nAt length.'\n    return 26\n\n"
        "@PARTS.register('alpha', example=lambda: 1)\n"
        "class Alpha:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import parts_for_tests

    yield parts_for_tests.PARTS
    for name in ("parts_for_tests", "parts_for_tests.later"):
        sys.modules.pop(name, None)


def test_a_file_in_the_package_is_all_it_takes(package):
    assert [entry.name for entry in package] == ["alpha", "zeta"]
    entry = package["zeta"]
    assert (entry.kind, entry.paper, entry.access, entry.differs) == ("part", "Nobody 2020, section 1", "none", "in all")
    assert entry.summary == "Does nothing."
    assert entry.build() == entry.example() == 26
    assert package["alpha"].example() == 1
    assert package["alpha"].summary == ""
    assert len(package) == 2
    assert "zeta" in package
    assert "eta" not in package


def test_a_wrong_name_is_answered_with_the_nearest(package):
    with pytest.raises(ConfigError, match=r"no part is called 'zetta'; did you mean zeta\? Known: alpha, zeta\."):
        package["zetta"]
    with pytest.raises(ConfigError, match=r"no part is called 'qqq'\. Known: alpha, zeta\."):
        package["qqq"]


def test_a_name_is_given_once(package):
    def another():
        """Another."""

    assert len(package) == 2
    with pytest.raises(ConfigError, match="two parts are called 'zeta'"):
        package.register("zeta")(another)


@pytest.mark.parametrize("registry", [ATTACKS, OBJECTIVES, UPDATES, NETWORKS, ADAPTERS], ids=lambda r: r.kind)
def test_our_registries_are_filled(registry):
    assert isinstance(registry, Registry)
    assert len(registry) >= 3
    names = [entry.name for entry in registry]
    assert names == sorted(names)
    assert all(entry.summary.endswith(".") for entry in registry), "the first line of a docstring says what the part is"


def test_the_parts_this_project_promises_are_there():
    assert {entry.name for entry in ATTACKS} >= {"fgsm", "pgd", "mi-fgsm", "apgd"}
    assert {entry.name for entry in OBJECTIVES} >= {"candidate-rank", "query-rank", "shift", "match", "avoid"}
    assert {entry.name for entry in UPDATES} >= {"steepest", "momentum", "adaptive"}
