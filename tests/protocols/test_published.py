"""The published figures: complete, in the paper's order, and read as the paper prints them."""

from __future__ import annotations

import itertools

import pytest

from embattle.protocols import PROTOCOLS, protocol
from embattle.records.robustness import NEEDED, PARTS
from embattle.scenarios import named


@pytest.mark.parametrize("name", [entry.name for entry in PROTOCOLS])
def test_every_cell_has_a_figure_and_every_column_a_scenario(name: str) -> None:
    found = protocol(name)
    assert found.name == name
    attacked = {(column.name, eps) for column in found.columns for eps in found.eps}
    clean = {(column.name, 0.0) for column in found.columns}
    assert len(clean) == len(found.columns), "every column has a name of its own"
    if found.scores:
        of_models = {model for model, score in found.scores.items() if score is not None}
        assert {(name, eps) for name, eps in attacked if name.split()[-1] in of_models} >= set(found.published)
    else:
        # Of the clean system a paper prints all columns or none; of findings told in a sentence, nothing.
        assert set(found.published) in (set(), attacked, attacked | clean)
    assert {"smoke", "cpu", "paper"} == set(found.scales)
    assert not found.scales["smoke"].judged
    for column in found.columns:
        scenario = named(column.scenario)
        assert scenario.name == column.scenario


@pytest.mark.parametrize(
    "name",
    [
        "ranking-table-1", "ranking-table-2", "ranking-table-3-vanilla", "ranking-table-3-defended", "ranking-table-4",
        "ranking-table-4-defended",
    ],
)  # fmt: skip
def test_stronger_attacks_and_more_eps_in_the_paper_itself(name: str) -> None:
    """A misplaced column would break the order that the paper's figures have."""
    found = protocol(name)
    for column in found.columns:
        curve = [found.published[column.scenario, eps] for eps in (0.0, *found.eps)]
        if name.startswith("ranking-table-4"):
            # Attacks on SOP are at their end at ε = .03, and Table 4 itself prints 10.5, 12.8, 10.8 for CA+ w = 5.
            ends = (curve[0], curve[1], curve[-1])
            assert list(ends) == sorted(ends, reverse=not column.rises)
            assert all(
                (after - before) * (1 if column.rises else -1) >= -2.6 for before, after in itertools.pairwise(curve)
            )
            continue
        assert curve == sorted(curve, reverse=not column.rises)
    for family in ("ca+.w", "sp-qa+.m"):
        for eps in found.eps:
            by_width = [found.published[f"{family}{width}", eps] for width in (1, 2, 5, 10)]
            # In the paper's own rounding noise: Table 2 prints 49.9, 49.5 for m = 1, 2 at ε = .01.
            assert all(wider >= narrower - 0.5 for narrower, wider in itertools.pairwise(by_width))


def test_transfer_and_universal_perturbations_in_the_paper_itself() -> None:
    """Crafting on the judging model is strongest; unseen pictures are a little safer than seen ones."""
    table_5, table_6 = protocol("ranking-table-5"), protocol("ranking-table-6")
    networks = ("lenet", "c2f1", "resnet18")
    by_pair = {(c.scenario, c.crafted_on, c.judged_on): c for c in table_5.columns}
    assert len(by_pair) == len(table_5.columns) == 4 * 9
    assert set(table_5.models) == set(networks)
    for (scenario, source, judge), column in by_pair.items():
        own, other = (table_5.published[by_pair[scenario, of, judge].name, 0.3] for of in (judge, source))
        assert own >= other if column.rises else own <= other
        before = table_5.published[column.name, 0.0]
        assert other >= before if column.rises else other <= before
    for scenario in ("i-ca+", "i-ca-", "i-qa+", "i-qa-"):
        seen, unseen = (next(c for c in table_6.columns if c.name == f"{scenario} {which}") for which in ("seen", "unseen"))
        assert (seen.attack, seen.metric, unseen.attack, unseen.metric) == (scenario, "seen_rank", scenario, "rank")
        ranks = [table_6.published[column.name, 0.3] for column in (seen, unseen)]
        assert abs(ranks[0] - ranks[1]) <= 0.5
        assert (ranks[0] - table_6.published[seen.name, 0.0] > 0) == seen.rises == unseen.rises


def test_a_few_figures_by_hand() -> None:
    """Read off the paper's Tables 1 and 3 and its authors' recorded curves, independently of the text blocks."""
    table_1, table_3 = protocol("ranking-table-1").published, protocol("ranking-table-3-vanilla").published
    curve = protocol("ranking-figure-2-vanilla").published
    assert table_1["ca+.w1", 0.3] == 2.1
    assert table_1["ca-.w10", 0.3] == 92.9
    assert table_1["sp-qa+.m10", 0.03] == 45.8
    assert table_1["sp-qa-.m1", 0.3] == 8.6
    assert table_3["ca+.w1", 0.3] == 1.3
    assert table_3["sp-qa-.m10", 0.3] == 6.6
    assert curve["shift", 0.3] == 1.395
    defended, other = protocol("ranking-table-2").published, protocol("ranking-table-3-defended").published
    assert (defended["ca+.w1", 0.3], defended["ca-.w1", 0.3], defended["sp-qa+.m1", 0.3]) == (30.7, 7.0, 33.2)
    assert (other["ca+.w10", 0.1], other["ca-.w2", 0.03], other["sp-qa-.m10", 0.3]) == (44.8, 1.9, 2.9)
    assert protocol("ranking-figure-2-defended").published["sp-qa+.m1", 0.15] == 40.5
    balance = protocol("ranking-table-7").published
    assert (balance["sp-qa+.m1 ξ 0", 0.3], balance["sp-qa+.m1 ξ 0, C_SP", 0.3]) == (0.2, 33.6)
    assert (balance["sp-qa-.m10 ξ 100", 0.3], balance["sp-qa-.m5 ξ 1, C_SP", 0.3]) == (4.8, 39.3)
    assert curve["ca-.w1", 0.15] == 50.0
    catalogue, hardened = protocol("ranking-table-4").published, protocol("ranking-table-4-defended").published
    # Named in the paper's text: a perturbation of 1 % ranks any candidate ahead of or behind nearly all others.
    assert (catalogue["ca+.w1", 0.01], catalogue["ca-.w1", 0.01]) == (0.0, 99.7)
    assert (catalogue["ca+.w10", 0.1], catalogue["sp-qa+.m5", 0.03], catalogue["sp-qa-.m1", 0.3]) == (1.7, 10.0, 77.7)
    assert (catalogue["ca-.w1", 0.0], catalogue["sp-qa-.m10", 0.3], catalogue["sp-qa-.m5", 0.1]) == (1.9, 35.0, 37.1)
    assert (hardened["ca+.w1", 0.01], hardened["ca+.w10", 0.1], hardened["ca-.w10", 0.3]) == (6.5, 15.1, 100.0)
    assert (hardened["ca-.w5", 0.03], hardened["sp-qa+.m2", 0.1], hardened["sp-qa-.m1", 0.3]) == (98.0, 12.0, 59.8)
    table_5, table_6 = protocol("ranking-table-5").published, protocol("ranking-table-6").published
    # The example of the paper's text: "row 2, column 3, top-left table"; and the one of CA−, "from 2.1% to 9.3%".
    assert table_5["ca+.w1 c2f1→resnet18", 0.3] == 31.3
    assert (table_5["ca-.w1 c2f1→resnet18", 0.0], table_5["ca-.w1 c2f1→resnet18", 0.3]) == (2.1, 9.3)
    assert table_5["sp-qa+.m1 resnet18→lenet", 0.3] == 41.4
    assert table_5["sp-qa-.m1 lenet→resnet18", 0.3] == 1.8
    assert table_5["ca-.w1 lenet", 0.0] == 2.5
    assert (table_6["i-ca- unseen", 0.0], table_6["i-ca- unseen", 0.3]) == (0.7, 9.4)
    assert (table_6["i-qa+ seen", 0.3], table_6["i-qa+ unseen", 0.3]) == (20.5, 21.0)
    assert table_6["qa-.m1", 0.3] == 94.1


def test_published_columns_give_the_published_robustness_scores() -> None:
    """The formula, on the paper's own figures of its ten attacks (two of them as published)."""
    found = protocol("robustness-scores")
    (eps,) = found.eps
    for model, score in found.scores.items():
        figures = {
            (column.scenario.removesuffix("-legacy"), column.metric): found.published[column.name, eps]
            for column in found.columns
            if column.judged_on == model and (column.name, eps) in found.published
        }
        assert bool(figures) == (score is not None)
        if score is not None:
            scores = [part.offset + part.factor * figures[part.threat, part.figure] for part in PARTS]
            assert len(figures) == len(PARTS)
            assert sum(scores) / len(PARTS) == pytest.approx(score, abs=0.05)


def test_every_part_of_the_robustness_score_is_measured_for_every_model() -> None:
    for name in ("robustness-scores", "robustness-scores-c2f1"):
        found = protocol(name)
        for model in found.models:
            assert {column.scenario for column in found.columns if column.judged_on == model} == set(NEEDED)
