"""Aims and measures of every scenario against rankings counted in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embattle.errors import ConfigError
from embattle.scenarios.scenario import SCENARIOS, named
from embattle.scenarios.universal import is_universal

ROWS = torch.tensor([3, 0, 17, 39, 8, 21])
NAMES = ["ca+.w1", "ca+.w3", "ca-.w1", "ca-.w2", "qa+.m1", "qa-.m2", "sp-qa+.m2", "sp-qa-.m1", "shift", "class"]


@pytest.fixture
def moved(subject) -> torch.Tensor:
    """Embeddings of the rows after some change to their pictures."""
    draw = torch.Generator().manual_seed(9)
    return subject.z[ROWS] + 0.6 * torch.randn(len(ROWS), subject.z.shape[1], generator=draw)


def test_every_family_is_tested() -> None:
    # Universal ones have tests of their own.
    single = {entry.name for entry in SCENARIOS if not is_universal(entry.build())}
    assert single == {name.partition(".")[0] for name in NAMES}


# --- aims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("ca+.w3", "queries"), ("qa+.m3", "candidates"), ("sp-qa+.m3", "candidates")])
def test_raised_targets_are_any_others(make_subject, name: str, key: str) -> None:
    subject = make_subject()
    seen = torch.zeros(len(subject.images), len(subject.images))
    rows = torch.arange(len(subject.images))
    for seed in range(30):
        drawn = named(name).aims(subject, rows, seed)[key]
        assert drawn.shape == (len(rows), 3)
        for row, targets in enumerate(drawn.tolist()):
            assert row not in targets
            assert len(set(targets)) == 3
            seen[row, targets] += 1
    # 30 x 3 draws from 39 others: every item is a target of nearly every other, none is preferred.
    assert (seen.diagonal() == 0).all()
    others = seen[~torch.eye(len(rows), dtype=torch.bool)]
    assert others.mean().item() == pytest.approx(90 / 39)
    assert others.max() < 13
    assert (others == 0).double().mean() < 0.13


@pytest.mark.parametrize(("name", "key"), [("ca-.w2", "queries"), ("qa-.m2", "candidates"), ("sp-qa-.m2", "candidates")])
def test_lowered_targets_are_among_the_nearest(subject, oracle, name: str, key: str) -> None:
    seen: dict[int, set[int]] = {int(row): set() for row in ROWS}
    for seed in range(25):
        for row, targets in zip(ROWS.tolist(), named(name).aims(subject, ROWS, seed)[key].tolist(), strict=True):
            assert len(set(targets)) == 2
            seen[row] |= set(targets)
    assert subject.page == 4
    assert seen == {row: set(oracle.nearest(row)[:4]) for row in seen}


@pytest.mark.parametrize("name", NAMES)
def test_aims_belong_to_the_picture_not_to_its_company(subject, name: str) -> None:
    scenario = named(name)
    together = scenario.aims(subject, ROWS, 5)
    turned = scenario.aims(subject, ROWS.flip(0), 5)
    for key, targets in together.items():
        alone = torch.cat([scenario.aims(subject, ROWS[i : i + 1], 5)[key] for i in range(len(ROWS))])
        assert torch.equal(alone, targets)
        assert torch.equal(turned[key].flip(0), targets)
        if key != "kept":
            assert not torch.equal(scenario.aims(subject, ROWS, 6)[key], targets)


@pytest.mark.parametrize("sign", ["+", "-"])
def test_preserving_and_plain_attacks_have_the_same_candidates(subject, sign: str) -> None:
    plain, preserving = (named(f"{family}{sign}.m2").aims(subject, ROWS, 3) for family in ("qa", "sp-qa"))
    assert torch.equal(plain["candidates"], preserving["candidates"])


@pytest.mark.parametrize("name", ["sp-qa+.m2", "sp-qa-.m2", "sp-qa-.m4"])
def test_kept_neighbours_are_the_nearest_that_are_no_candidates(subject, oracle, name: str) -> None:
    for seed in range(5):
        aims = named(name).aims(subject, ROWS, seed)
        for row, chosen, kept in zip(ROWS.tolist(), aims["candidates"].tolist(), aims["kept"].tolist(), strict=True):
            assert kept == [other for other in oracle.nearest(row) if other not in chosen][:3]


def test_a_gallery_too_small_for_the_neighbours_keeps_fewer(make_model, make_gallery) -> None:
    from embattle.audit import Subject

    small = Subject.of(make_model(), make_gallery(count=6), k=2, keep_own=True, preserve=10)
    aims = named("sp-qa+.m2").aims(small, torch.arange(6), 0)
    assert aims["kept"].shape == (6, 3)
    for row in range(6):
        assert {row, *aims["candidates"][row].tolist(), *aims["kept"][row].tolist()} == set(range(6))


def test_identical_pictures_do_not_stand_in_for_each_other(make_model, make_gallery) -> None:
    """With a twin in the gallery, the nearest list of a picture holds its twin and not itself."""
    from dataclasses import replace

    from embattle.audit import Subject

    images = make_gallery()
    pixels = images.images.clone()
    pixels[7] = pixels[2]
    twins = Subject.of(make_model(), replace(images, images=pixels), k=4, keep_own=True)
    near = twins.neighbours(torch.tensor([2, 7]), 4)
    assert near[0, 0] == 7
    assert near[1, 0] == 2
    assert 2 not in near[0]
    assert 7 not in near[1]


# --- measures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca+.w1", "ca+.w3", "ca-.w2"])
@pytest.mark.parametrize("clean", [True, False])
def test_candidate_ranks(subject, oracle, moved, name: str, clean: bool) -> None:
    z = subject.z[ROWS] if clean else moved
    aims = named(name).aims(subject, ROWS, 1)
    found = named(name).measure(subject, ROWS, aims, z)
    for i, row in enumerate(ROWS.tolist()):
        out = None if oracle.keep else row
        counted = [oracle.rank(oracle.z[query], z[i].double().numpy(), out) for query in aims["queries"][i].tolist()]
        assert found.metrics["rank"][i].item() == pytest.approx(100 * np.mean(counted) / (40 if oracle.keep else 39))
        # A visitor's list: without the query itself, and with the item once, as it is now.
        item = z[i].double().numpy()
        inside = [oracle.rank(oracle.z[q], item, [row, q]) < subject.page for q in aims["queries"][i].tolist()]
        assert bool(found.goal[i]) == (all(inside) if name.startswith("ca+") else not any(inside))


@pytest.mark.parametrize("name", ["qa+.m1", "qa-.m2", "sp-qa+.m2", "sp-qa-.m1"])
@pytest.mark.parametrize("clean", [True, False])
def test_query_ranks(subject, oracle, moved, name: str, clean: bool) -> None:
    z = subject.z[ROWS] if clean else moved
    aims = named(name).aims(subject, ROWS, 1)
    found = named(name).measure(subject, ROWS, aims, z)
    assert ("kept_rank" in found.metrics) == name.startswith("sp-")
    for i, row in enumerate(ROWS.tolist()):
        out = None if oracle.keep else row
        query, size = z[i].double().numpy(), 40 if oracle.keep else 39
        counted = [oracle.rank(query, oracle.z[item], out) for item in aims["candidates"][i].tolist()]
        assert found.metrics["rank"][i].item() == pytest.approx(100 * np.mean(counted) / size)
        inside = [oracle.rank(query, oracle.z[item], row) < subject.page for item in aims["candidates"][i].tolist()]
        natural = [oracle.rank(query, oracle.z[item], row) for item in aims["kept"][i].tolist()]
        reached = all(inside) if "+" in name else not any(inside)
        assert bool(found.goal[i]) == (reached and (not name.startswith("sp-") or np.mean(natural) < subject.page))
        if name.startswith("sp-"):
            kept = [oracle.rank(query, oracle.z[item], out) for item in aims["kept"][i].tolist()]
            assert found.metrics["kept_rank"][i].item() == pytest.approx(100 * np.mean(kept) / size)


def test_shift(subject, oracle, moved) -> None:
    found = named("shift").measure(subject, ROWS, {}, moved)
    for i, row in enumerate(ROWS.tolist()):
        query = moved[i].double().numpy()
        rank = oracle.rank(query, oracle.z[row], None)  # the original is what is looked for: it always stays
        assert found.metrics["self_rank"][i].item() == pytest.approx(100 * rank / 40)
        assert bool(found.goal[i]) == (rank >= subject.page)
        near = oracle.closeness(query[None], oracle.z[[row]])[0, 0]
        distance = 1 - near if subject.similarity.name == "cosine" else -near
        assert found.metrics["distance"][i].item() == pytest.approx(distance, abs=1e-6)
    clean = named("shift").measure(subject, ROWS, {}, subject.z[ROWS])
    assert not clean.goal.any()
    assert (clean.metrics["self_rank"] == 0).all()


def test_goals_change_exactly_at_the_end_of_the_page(subject, oracle) -> None:
    """One picture put at many places of the gallery: between them they reach every rank around the page's end."""
    draw = torch.Generator().manual_seed(4)
    count, last = 300, subject.page - 1
    one, other = torch.randint(0, 40, (2, count), generator=draw)
    share = torch.rand(count, 1, generator=draw)
    places = share * subject.z[one] + (1 - share) * subject.z[other]
    rows, twelve = torch.full((count,), 3), torch.full((count, 1), 12)
    for name, key in (("ca+.w1", "queries"), ("ca-.w1", "queries"), ("qa+.m1", "candidates"), ("qa-.m1", "candidates")):
        aims = {key: twelve, "kept": torch.empty(count, 0, dtype=torch.int64)}
        goal = named(name).measure(subject, rows, aims, places).goal.tolist()
        if key == "queries":
            counted = [oracle.rank(oracle.z[12], z, [3, 12]) for z in places.double().numpy()]
        else:
            counted = [oracle.rank(z, oracle.z[12], 3) for z in places.double().numpy()]
        assert {last, last + 1} <= set(counted)
        assert goal == [(rank <= last) == ("+" in name) for rank in counted]
    counted = [oracle.rank(z, oracle.z[3], None) for z in places.double().numpy()]
    assert {last, last + 1} <= set(counted)
    assert named("shift").measure(subject, rows, {}, places).goal.tolist() == [rank > last for rank in counted]


def test_class(subject, oracle, moved) -> None:
    found = named("class").measure(subject, ROWS, {}, moved)
    labels = subject.images.labels.numpy()
    for i, row in enumerate(ROWS.tolist()):
        near = oracle.closeness(moved[i].double().numpy()[None], oracle.z)[0]
        near[row] = -np.inf
        right = labels[int(near.argmax())] == labels[row]
        assert found.metrics["recall@1"][i].item() == 100 * right
        assert bool(found.goal[i]) == (not right)


def test_success_needs_every_target(make_subject) -> None:
    subject = make_subject()
    scenario = named("ca+.w2")
    aims = {"queries": torch.tensor([[5, 6]])}
    near_one = subject.z[5:6]  # at the top for query 5
    measured = scenario.measure(subject, torch.tensor([0]), aims, near_one)
    alone = named("ca+.w1").measure(subject, torch.tensor([0]), {"queries": torch.tensor([[5]])}, near_one)
    assert alone.goal.tolist() == [True]
    other = named("ca+.w1").measure(subject, torch.tensor([0]), {"queries": torch.tensor([[6]])}, near_one)
    assert measured.goal.tolist() == other.goal.tolist()


# --- contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_contract(subject, moved, name: str) -> None:
    scenario = named(name)
    assert scenario.name == name
    told = scenario.describe(subject)
    assert {"title", "question", "direction", "metric", "metrics", "criterion", "advice"} <= set(told)
    assert told["question"].endswith("?")
    assert told["direction"] in ("raise", "lower")
    assert told["metric"] in told["metrics"]
    assert len(told["advice"]) >= 1
    for spec in told["metrics"].values():
        assert set(spec) == {"unit", "higher_is_better", "title"}
        assert isinstance(spec["higher_is_better"], bool)
    aims = scenario.aims(subject, ROWS, 0)
    assert all(len(targets) == len(ROWS) for targets in aims.values())
    wanted, available = scenario.targets(len(subject.images), subject.page)
    assert wanted <= available
    before = subject.z.clone()
    measured = scenario.measure(subject, ROWS, aims, moved)
    assert set(measured.metrics) == set(told["metrics"])
    for values in measured.metrics.values():
        assert values.shape == (len(ROWS),)
        assert torch.isfinite(values).all()
    assert measured.goal.dtype == torch.bool
    bound = scenario.objective(subject, ROWS, aims).bind(subject.embedder)
    assert bound is not None
    assert torch.equal(subject.z, before)


@pytest.mark.parametrize("name", NAMES)
def test_exhibits(subject, moved, oracle, name: str) -> None:
    """Lists are in order, without the query itself, with the attacked item framed once, at the rank that is told."""
    scenario = named(name)
    aims = scenario.aims(subject, ROWS, 0)
    for i, row in enumerate(ROWS.tolist()):
        one = {key: targets[i : i + 1] for key, targets in aims.items()}
        shown = scenario.exhibit(subject, row, one, moved[i : i + 1])
        candidate = name.startswith("ca")
        searcher = int(one["queries"][0, 0]) if candidate else row
        framed = row if candidate or name in ("shift", "class") else int(one["candidates"][0, 0])
        hidden = {searcher} if candidate or name.startswith(("qa", "sp")) else set()
        for items, rank, attacked in ((shown.before, shown.rank_before, False), (shown.after, shown.rank_after, True)):
            query = moved[i].double().numpy() if attacked and not candidate else oracle.z[searcher]
            z = oracle.z.copy()
            if attacked and candidate:
                z[row] = moved[i].double().numpy()
            near = oracle.closeness(query[None], z)[0]
            order = [int(p) for p in np.argsort(-near, kind="stable") if p not in hidden]
            assert rank == order.index(framed) + 1
            # Where the framed item is far down, it stands last, with its true rank.
            ranks = list(range(1, 9)) if rank <= 8 else [*range(1, 8), rank]
            assert [item.rank for item in items] == ranks
            told = [framed if item.position is None else item.position for item in items]
            assert told == [order[rank - 1] for rank in ranks]
            assert [item.similarity for item in items] == pytest.approx([near[p] for p in told], abs=1e-4)
            assert [item.framed for item in items] == [p == framed for p in told]
            assert [item.position is None for item in items] == [attacked and candidate and p == row for p in told]
        assert shown.anchor == (searcher if candidate else framed if hidden else None)


def test_scenarios_that_need_labels_say_so(make_subject) -> None:
    subject = make_subject(labelled=False)
    needing = [entry.name for entry in SCENARIOS if entry.build().needs_labels]
    assert needing == ["class"]
    with pytest.raises(ConfigError, match="needs labels"):
        named("class").measure(subject, ROWS, {}, subject.z[ROWS])


@pytest.mark.parametrize("name", ["ca+.w40", "ca-.w5", "qa+.m40", "sp-qa-.m5"])
def test_more_targets_than_there_are(make_subject, name: str) -> None:
    subject = make_subject()
    wanted, available = named(name).targets(len(subject.images), subject.page)
    assert wanted > available
    with pytest.raises(ConfigError, match=f"{wanted} targets"):
        named(name).aims(subject, ROWS, 0)
