"""Lists and descriptions come from the registries: every part is in them, with a line that works."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main

from embattle.cli.app import app
from embattle.cli.catalogue import KINDS, find
from embattle.defenses import HardenConfig
from embattle.errors import ConfigError
from embattle.report.figures import eps_text
from embattle.training import LOSSES

PARTS = [(label, entry.name) for label, kind in KINDS.items() for entry in kind.entries()]


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_every_registry_of_the_package_has_a_kind() -> None:
    import embattle

    source = Path(embattle.__file__).parent
    written = [path for path in source.rglob("*.py") if ": Registry = Registry(" in path.read_text(encoding="utf-8")]
    assert len(written) == len(KINDS)


def test_the_overview_has_every_name(call) -> None:
    said = call("list")
    assert said.code == 0
    for label, kind in KINDS.items():
        line = next(line for line in said.out.splitlines() if line.startswith(label))
        assert line.split()[1] == str(len(kind.entries()))
    for _, name in PARTS:
        assert name in said.out


@pytest.mark.parametrize("label", list(KINDS))
def test_a_kind_has_a_table(call, monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    said = call("list", label)
    assert said.code == 0
    for entry in KINDS[label].entries():
        line = next(line for line in said.out.splitlines() if line.split()[:1] == [entry.name])
        for told in (entry.summary, entry.paper, entry.access, entry.differs):
            assert squeezed(told) in squeezed(line)
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, call("list", label).out.splitlines())) <= 80


@pytest.mark.parametrize(("label", "name"), PARTS)
def test_a_part_is_shown(call, label: str, name: str) -> None:
    said = call("show", name)
    assert said.code == 0
    entry = KINDS[label].entries()[name]
    for told in (entry.paper, entry.differs, entry.summary):
        assert told in said.out
    parameters = inspect.signature(entry.build).parameters if KINDS[label].details is None else ()
    for parameter in parameters:
        assert parameter in said.out
    assert ">>>" not in said.out
    assert f"    {KINDS[label].example(entry, name)}" in said.out


@pytest.mark.parametrize(("label", "name"), PARTS)
def test_examples_are_lines_that_work(label: str, name: str) -> None:
    line = KINDS[label].example(KINDS[label].entries()[name], name)
    if not line.startswith("embattle"):
        exec(line.partition(";")[0], {})
        return
    verb, *flags = shlex.split(line)[1:]
    command = typer.main.get_command(app).commands[verb]
    command.make_context(verb, flags)


def test_a_scenario_is_shown_under_its_width(call) -> None:
    said = call("show", "sp-qa+.m10")
    assert said.code == 0
    assert "embattle audit --only sp-qa+.m10" in said.out
    assert call("show", "sp-qa+.w10").code == 2


def told_columns(words: str) -> set[tuple[str, str]]:
    """Metric and attack of every column, as a reader spreads out what is said of them."""

    def spread(told: re.Match[str]) -> str:
        widths, _, balances = told["with"].partition(" and ξ ")
        return ", ".join(
            f"{family}{width}{f' ξ {xi}' if xi else ''}"
            for family in told["families"].split(" and ") for width in widths.split(", ") for xi in balances.split(", ")
        )  # fmt: skip

    columns = re.search(r" columns (mean .+?)(?:; on each of: .+)? ε \d", words)[1]
    found = set()
    for part in columns.split("; "):
        metrics, _, attacks = part.partition(" of ")
        plain = re.sub(r"(?P<families>(?:\S+ and )*\S+) \((?:each )?with (?P<with>[^)]+)\)", spread, attacks)
        found |= {(metric, attack) for metric in metrics.split(" and ") for attack in plain.split(", ")}
    return found


@pytest.mark.parametrize("entry", KINDS["protocols"].entries(), ids=lambda entry: entry.name)
def test_a_protocol_says_what_it_runs_and_what_it_takes(call, entry) -> None:
    said, protocol = call("show", entry.name), entry.build()
    words = said.words
    recalls = [f"{model.recall:g} %" for model in protocol.models.values() if model.recall is not None]
    networks = {model.network for model in protocol.models.values()}
    for told in (protocol.title, protocol.paper, protocol.data, *networks, *recalls):
        assert told in words
    for sentence in protocol.differs:
        assert f"- {sentence}" in words
    assert told_columns(words) == {
        ("mean rank in %" if column.metric == "rank" else f"mean {column.metric.replace('_', ' ')}",
         replace(column, crafted_on="", judged_on="").attack)
        for column in protocol.columns
    }  # fmt: skip
    first = next(n for n, line in enumerate(said.out.splitlines()) if line.startswith("columns"))
    assert next(n for n, line in enumerate(said.out.splitlines()) if line.startswith("ε ")) - first <= 6
    assert ", ".join(f"{round(eps, 3):g}" for eps in protocol.eps) in words
    assert ("Auto-PGD" in words) == protocol.adaptive
    for name, scale in protocol.scales.items():
        assert len(scale.takes) > 5
        line = words.partition(f" {name} {scale.epochs} epoch")[2].partition(scale.takes)[0]
        assert f"{scale.attacked:,} pictures a seed" in line
        assert (f"{scale.targets} targets a seed" in line) == (scale.targets > 1)
        assert ", ".join(map(str, scale.seeds)) in line
    assert max(map(len, said.out.partition(protocol.title)[2].splitlines())) <= 80


@pytest.mark.parametrize("entry", KINDS["defenses"].entries(), ids=lambda entry: entry.name)
def test_a_defense_says_what_harden_takes(call, entry) -> None:
    told = call("show", entry.name).out
    assert "InnerAttack" not in told  # what it is built of is for whoever writes one
    facts = dict(line.split(None, 1) for line in told.splitlines() if line.startswith(("labels ", "losses ")))
    flags = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.startswith("  --")}
    usual = HardenConfig.parse({"defense": entry.name})
    assert flags["--epochs"][-1] == str(usual.epochs)
    assert flags["--eps"][-1] == eps_text(usual.eps)
    for name, setting in (("--lr", "lr"), ("--batch-norm", "batch_norm")):
        fresh = getattr(HardenConfig.parse({"defense": entry.name, "fresh": True}), setting)
        assert [word.strip(";") for word in flags[name][1:]] == [
            str(getattr(usual, setting)), "with", "--fresh", str(fresh)
        ]  # fmt: skip
    assert facts["labels"] == ("needed" if entry.build.needs_labels else "none")
    assert {"--loss", "--margin"} <= set(flags) if entry.build.needs_labels else not {"--loss", "--margin"} & set(flags)
    for loss in LOSSES:
        settings = {"defense": entry.name, "loss": loss.name, "margin": 0.7}
        if loss.name in facts["losses"].split(", "):
            HardenConfig.parse(settings)
        else:
            with pytest.raises(ConfigError):
                HardenConfig.parse(settings)
    command = typer.main.get_command(app).commands["harden"]
    for name in flags:
        command.make_context("harden", ["--defense", entry.name, name, *([] if name == "--fresh" else ["1"])])


def test_the_list_of_defenses_marks_who_needs_labels_in_80_columns(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("list", "defenses").out.splitlines()
    column = next(line.index("labels") for line in lines if "labels" in line)
    for entry in KINDS["defenses"].entries():
        line = next(line for line in lines if line.split()[:1] == [entry.name])
        assert line[column:].split()[0] == ("needed" if entry.build.needs_labels else "none")
    assert not any("…" in line for line in lines)


def test_names_of_two_parts_show_both() -> None:
    assert {label for label, _ in find("shift")} == {"objectives", "scenarios"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "atacks"], ["'atacks'", "did you mean attacks"]),
        (["list", "zzz"], ["'zzz'", "write one of attacks, objectives"]),
        (["show", "pdg"], ["'pdg'", "pgd"]),
        (["show", "candidate"], ["'candidate'", "candidate-rank"]),
        (["show", "§§§§"], ["embattle list"]),
        (["show"], ["NAME"]),
    ],
)
def test_unknown_names(call, refused, arguments: list[str], words: list[str]) -> None:
    refused(call(*arguments), *words)
