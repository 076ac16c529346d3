"""Aims and measures of every scenario against rankings counted in numpy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from embattle.errors import ConfigError
from embattle.scenarios.scenario import SCENARIOS, named
from embattle.scenarios.subject import Subject
from embattle.scenarios.universal import is_universal

ROWS = torch.tensor([3, 0, 17, 39, 8, 21])
NAMES = [
    "ca+.w1", "ca+.w3", "ca-.w1", "ca-.w2", "qa+.m1", "qa-.m2", "sp-qa+.m2", "sp-qa-.m1", "shift", "class", "es", "tma",
    "ltm", "ltm-legacy", "gtm", "gtm-legacy", "gtt",
]  # fmt: skip
# Whose targets follow from the gallery, so that no seed changes them.
GREEDY = ["gtm", "gtm-legacy", "gtt"]


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
        if key != "kept" and name not in GREEDY:
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


@pytest.mark.parametrize("name", ["es", "ltm", "ltm-legacy", "gtm", "gtm-legacy"])
def test_recall_is_the_same_whatever_attacked(subject, moved, name: str) -> None:
    scenario, rows = named(name), torch.arange(40)
    z = torch.cat([subject.z[:34], moved])
    found = scenario.measure(subject, rows, scenario.aims(subject, rows, 0), z)
    again = named("class").measure(subject, rows, {}, z)
    assert torch.equal(found.metrics["recall@1"], again.metrics["recall@1"])
    assert torch.equal(found.goal, again.goal)
    assert found.goal.any()
    assert not found.goal.all()


def test_shift_on_the_unit_sphere(subject, moved) -> None:
    found = named("es").measure(subject, ROWS, {}, moved).metrics["max_shift"]
    for i, row in enumerate(ROWS.tolist()):
        a, b = (v.double().numpy() / np.linalg.norm(v.double().numpy()) for v in (subject.z[row], moved[i]))
        assert found[i].item() == pytest.approx(np.linalg.norm(a - b), abs=1e-9)
    opposite = named("es").measure(subject, ROWS, {}, -subject.z[ROWS]).metrics["max_shift"]
    assert opposite.tolist() == pytest.approx([2.0] * len(ROWS))


def test_who_is_alone_in_a_class_has_no_recall(make_model, make_gallery) -> None:
    from dataclasses import replace

    from embattle.audit import Subject

    images = make_gallery()
    labels = images.labels.clone()
    labels[3] = 4
    alone = Subject.of(make_model(), replace(images, labels=labels, classes=tuple("abcde")), k=4, keep_own=True)
    for name in ("class", "es", "ltm", "gtm"):
        clean = named(name).measure(alone, ROWS, named(name).aims(alone, ROWS, 0), alone.z[ROWS])
        assert torch.isnan(clean.metrics["recall@1"]).tolist() == [row == 3 for row in ROWS.tolist()]
        assert bool(clean.goal[0]), "what cannot be found before the attack is no success of it"


def test_targeted_mismatch(subject, oracle, moved) -> None:
    aims = {"target": torch.tensor([5, 11, 17, 2, 30, 8])}
    # One picture stands exactly on its target, where only a twin of the target could be closer.
    z = moved.clone()
    z[1] = subject.z[11]
    # Another stands where it was, before its nearest neighbour: nothing but its own copy is closer.
    z[4], aims["target"][4] = subject.z[ROWS[4]], oracle.nearest(int(ROWS[4]))[0]
    found = named("tma").measure(subject, ROWS, aims, z)
    for i, (row, target) in enumerate(zip(ROWS.tolist(), aims["target"].tolist(), strict=True)):
        here = z[i].double().numpy()
        cosine = here @ oracle.z[target] / np.linalg.norm(here) / np.linalg.norm(oracle.z[target])
        assert found.metrics["cosine"][i].item() == pytest.approx(cosine, abs=1e-9)
        assert bool(found.goal[i]) == (oracle.rank(here, oracle.z[target], row) == 0)
    assert found.goal[[1, 4]].all()
    assert not found.goal.all()


def test_retain_at_four(subject, oracle, moved) -> None:
    first = [oracle.nearest(row)[0] for row in ROWS.tolist()]
    aims = named("gtt").aims(subject, ROWS, 0)
    assert aims["target"].tolist() == first
    clean = named("gtt").measure(subject, ROWS, aims, subject.z[ROWS])
    assert clean.metrics["retain@4"].tolist() == [100.0] * len(ROWS)
    found = named("gtt").measure(subject, ROWS, aims, moved)
    for i, row in enumerate(ROWS.tolist()):
        rank = oracle.rank(moved[i].double().numpy(), oracle.z[first[i]], row)
        assert found.metrics["retain@4"][i].item() == 100.0 * (rank < 4)
        assert bool(found.goal[i]) == (rank >= 4)
    assert found.goal.any()


@pytest.mark.parametrize(("items", "known"), [(5, False), (6, True)])
def test_four_places_that_are_enough_for_all_say_nothing(make_model, make_gallery, items: int, known: bool) -> None:
    subject = Subject.of(make_model("cosine"), make_gallery(labelled=True).take(range(items)), k=2, keep_own=True)
    rows = torch.arange(items)
    aims = named("gtt").aims(subject, rows, 0)
    found = named("gtt").measure(subject, rows, aims, -subject.z)
    assert bool(found.metrics["retain@4"].isnan().all()) != known
    # Undefined, because the goal counts as reached before anything was attacked.
    assert known or found.goal.all()


def test_the_own_copy_takes_none_of_the_four_places(subject, oracle) -> None:
    """At many places near the picture: what was first stands fourth among the others, and fifth with the copy."""
    draw = torch.Generator().manual_seed(8)
    rows, aims = torch.full((400,), 3), {"target": torch.full((400,), oracle.nearest(3)[0])}
    z = subject.z[3] + 0.5 * torch.rand(400, 1, generator=draw) * torch.randn(400, subject.z.shape[1], generator=draw)
    kept = named("gtt").measure(subject, rows, aims, z).metrics["retain@4"]
    first = oracle.z[oracle.nearest(3)[0]]
    ranked = [[oracle.rank(here, first, out) for out in (3, None)] for here in z.double().numpy()]
    assert kept.tolist() == [100.0 * (rank < 4) for rank, _ in ranked]
    assert [3, 4] in ranked


# --- the nearest item of another class, and the index that published figures took for it ----------------------------


def published_place(oracle, labels: np.ndarray, row: int) -> int:
    """The public implementation's arithmetic in plain loops: argsort twice, mask, argmin of what is left."""
    near = -oracle.closeness(oracle.z[[row]], oracle.z)[0]
    near[row] = 1e38
    order = sorted(range(len(near)), key=lambda place: (near[place], place))
    rank = {place: position for position, place in enumerate(order)}
    masked = [rank[place] for place in range(len(near)) if labels[place] != labels[order[0]]]
    return min(range(len(masked)), key=masked.__getitem__)


def test_the_nearest_of_another_class_is_a_place_in_the_whole_gallery(subject, oracle) -> None:
    rows = torch.arange(len(subject.images))
    labels = subject.images.labels.numpy()
    found = named("gtm").aims(subject, rows, 0)["target"].tolist()
    expected = [next(other for other in oracle.nearest(row) if labels[other] != labels[row]) for row in rows.tolist()]
    assert found == expected
    published = named("gtm-legacy").aims(subject, rows, 0)["target"].tolist()
    assert published == [published_place(oracle, labels, row) for row in rows.tolist()]
    wrong = [row for row in rows.tolist() if published[row] != found[row]]
    assert len(wrong) > 30, "a compressed row's index names another item nearly always"
    same_class = [row for row in wrong if labels[published[row]] == labels[row]]
    assert same_class, "some of the items it names are even of the picture's own class"


def test_a_picture_that_is_misread_already_is_not_sent_back_to_its_class(make_model, make_gallery) -> None:
    """The public implementation takes "another class" from the nearest neighbour, which may be of another one itself."""
    from dataclasses import replace

    from embattle.audit import Subject

    images = make_gallery()
    pixels, labels = images.images.clone(), images.labels
    pixels[2] = pixels[7]
    assert labels[2] != labels[7]
    misread = Subject.of(make_model(), replace(images, images=pixels), k=4, keep_own=True)
    assert named("gtm").aims(misread, torch.tensor([2]), 0)["target"].tolist() == [7]
    assert named("gtm").aims(misread, torch.tensor([7]), 0)["target"].tolist() == [2]


def test_of_equally_near_items_of_another_class_the_first_is_taken(make_model, make_gallery) -> None:
    from dataclasses import replace

    from embattle.audit import Subject

    images = make_gallery()
    nearest = int(named("gtm").aims(Subject.of(make_model(), images, k=4, keep_own=True), torch.tensor([8]), 0)["target"])
    twin = next(place for place in range(nearest) if images.labels[place] not in images.labels[[8, nearest]])
    pixels = images.images.clone()
    pixels[twin] = pixels[nearest]
    twins = Subject.of(make_model(), replace(images, images=pixels), k=4, keep_own=True)
    assert named("gtm").aims(twins, torch.tensor([8]), 0)["target"].tolist() == [twin]


def test_a_gallery_of_one_class_has_no_item_of_another(make_model, make_gallery) -> None:
    from dataclasses import replace

    from embattle.audit import Subject

    images = make_gallery()
    one = Subject.of(make_model(), replace(images, labels=images.labels * 0), k=4, keep_own=True)
    for name in ("gtm", "gtm-legacy"):
        with pytest.raises(ConfigError, match="of one class"):
            named(name).aims(one, ROWS, 0)
    with pytest.raises(ConfigError, match="of one class"):
        named("ltm").objective(one, ROWS, {})


@pytest.mark.parametrize(("name", "masked"), [("ltm", True), ("ltm-legacy", False)])
def test_the_mask_is_what_sets_misranking_and_its_published_form_apart(make_subject, name: str, masked: bool) -> None:
    objective = named(name).objective(make_subject(), ROWS, {})
    assert (objective.own is not None) == masked
    assert not masked or torch.equal(objective.own, ROWS)


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
    # Read on its own, far from the scenario that it may be a variant of: a question by its first word, too.
    assert re.fullmatch(r"(Can|Does|Do|Is|Are|How|Which) .+\?", told["question"])
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
        aimed = next((one[key].flatten() for key in ("candidates", "target") if key in one), None)
        framed = row if aimed is None else int(aimed[0])
        hidden = {searcher} if candidate or aimed is not None else set()
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
    needing = {entry.name: entry.build().needs_classes for entry in SCENARIOS if entry.build().needs_classes}
    assert needing == {"class": 1, "es": 1, "gtm": 2, "gtm-legacy": 2, "ltm": 2, "ltm-legacy": 2}
    for name in needing:
        with pytest.raises(ConfigError, match="needs labels"):
            named(name).measure(subject, ROWS, {}, subject.z[ROWS])


@pytest.mark.parametrize("name", ["ca+.w40", "ca-.w5", "qa+.m40", "sp-qa-.m5"])
def test_more_targets_than_there_are(make_subject, name: str) -> None:
    subject = make_subject()
    wanted, available = named(name).targets(len(subject.images), subject.page)
    assert wanted > available
    with pytest.raises(ConfigError, match=f"{wanted} targets"):
        named(name).aims(subject, ROWS, 0)
