"""ERS against the published columns, and what happens to it where a part is missing or means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from embattle.errors import ConfigError
from embattle.records import Figure, build_robustness, empirical_robustness, parse_gate, wilson
from embattle.records.robustness import NEEDED, PARTS, planned_robustness

# Fashion-MNIST, network C2F1 + ReLU + Linear(1024, 512), normalised Euclidean distance, ε = 77/255: the ten published
# columns CA+ CA− QA+ QA− TMA ES:D ES:R LTM GTM GTT of the authors' reference table, and the score that they publish.
PUBLISHED = {
    "no defense": ((1.1, 96.8, 0.3, 97.8, 0.990, 1.604, 0.1, 0.0, 12.6, 0.0), 4.2),
    "EST": ((14.9, 36.1, 20.9, 48.6, 0.966, 0.288, 62.0, 28.0, 20.8, 0.0), 38.7),
    "ACT": ((33.6, 14.6, 38.5, 12.1, 0.259, 0.541, 48.5, 59.5, 60.2, 0.1), 63.3),
}  # fmt: skip
SPHERE = {"similarity": "cosine"}


def figure(value: float | None, *, half: float = 0.0, n: int = 50, **more: Any) -> Figure:
    given = {"unit": "", "undefined": 0, "failed": 0, "method": "", "higher_is_better": True, **more}
    ci = None if value is None else (value - half, value + half)
    return Figure(value=value, n=0 if value is None else n, ci=ci, **given)


def threat(name: str, figures: dict[str, Figure], eps: float = 0.3) -> dict[str, Any]:
    told = {key: each.to_json() for key, each in figures.items()}
    return {"threat": name, "curve": [{"eps": 0.0, "figures": told}, {"eps": eps, "figures": told}]}


def threats(values: tuple[float, ...], *, legacy: dict[str, float] | None = None) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Figure]] = {}
    for part, value in zip(PARTS, values, strict=True):
        found.setdefault(part.threat, {})[part.figure] = figure(value)
    for name, value in (legacy or {}).items():
        found[name] = {"recall@1": figure(value)}
    return [threat(name, figures) for name, figures in found.items()]


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_columns_give_the_published_score(row: str) -> None:
    values, published = PUBLISHED[row]
    scores = [part.score(figure(value)) for part, value in zip(PARTS, values, strict=True)]
    assert [part.name for part in PARTS] == ["CA+", "CA−", "QA+", "QA−", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT"]
    assert round(empirical_robustness(scores).value or -1, 1) == published
    # The same line by line, without the table of parts.
    cap, cam, qap, qam, tma, esd, esr, ltm, gtm, gtt = values
    lines = [2 * cap, 100 - cam, 2 * qap, 100 - qam, 100 * (1 - tma), 50 * (2 - esd), esr, ltm, gtm, gtt]
    assert [score.value for score in scores] == pytest.approx(lines)


def test_a_system_that_gives_in_has_0_and_one_that_holds_has_100() -> None:
    broken = (0, 100, 0, 100, 1, 2, 0, 0, 0, 0)
    unmoved = (50, 0, 50, 0, 0, 0, 100, 100, 100, 100)
    for values, expected in ((broken, 0.0), (unmoved, 100.0)):
        (point,) = build_robustness(SPHERE, threats(values))["curve"]
        assert [row["ers"]["score"]["value"] for row in point["parts"]] == [expected] * 10
        assert point["figures"]["ers"]["value"] == expected


def test_the_interval_is_the_mean_of_the_ends() -> None:
    halves = [1.0, 2.0, 0.5, 3.0, 0.01, 0.02, 4.0, 5.0, 6.0, 7.0]
    scores = [
        part.score(figure(1.0, half=half, n=30 + i)) for i, (part, half) in enumerate(zip(PARTS, halves, strict=True))
    ]
    for part, score, half in zip(PARTS, scores, halves, strict=True):
        assert score.ci is not None
        assert score.ci[1] - score.ci[0] == pytest.approx(2 * half * abs(part.factor))
    total = empirical_robustness(scores)
    assert total.ci is not None
    wide = sum(half * abs(part.factor) for part, half in zip(PARTS, halves, strict=True)) / 10
    assert (total.ci[0] + total.ci[1]) / 2 == pytest.approx(total.value)
    assert (total.ci[1] - total.ci[0]) / 2 == pytest.approx(wide)
    assert (total.n, total.unit, total.higher_is_better) == (30, "", True)
    assert "means of the ten scores' ends" in total.method


def test_shares_have_an_interval_where_all_pictures_agree() -> None:
    """The bootstrap of equal values has no width, and 0 of 50 is not certainty."""
    (point,) = build_robustness(SPHERE, threats((0.0,) * 10))["curve"]
    rates = [row["ers"]["score"]["ci"] for row in point["parts"][6:]]
    assert rates == [[0.0, pytest.approx(100 * wilson(0, 50)[1])]] * 4
    assert point["parts"][0]["ers"]["score"]["ci"] == [0.0, 0.0]


@pytest.mark.parametrize("missing", NEEDED)
def test_without_a_part_there_is_no_score(missing: str) -> None:
    whole = threats(PUBLISHED["EST"][0], legacy={"ltm-legacy": 40.0, "gtm-legacy": 50.0})
    assert {each["threat"] for each in whole} == set(NEEDED)
    rest = [each for each in whole if each["threat"] != missing]
    (point,) = build_robustness(SPHERE, rest)["curve"]
    for score in ("ers", "ers-legacy"):
        counts = {part.name for part in PARTS if missing == (part.threat if score == "ers" else part.legacy or part.threat)}
        assert set(point["missing"][score]) == counts
        assert (point["figures"][score]["value"] is None) == bool(counts)


def test_a_part_without_a_value_is_a_missing_part() -> None:
    given = threats(PUBLISHED["EST"][0])
    (ltm,) = (each for each in given if each["threat"] == "ltm")
    ltm["curve"][1]["figures"]["recall@1"] = figure(None, undefined=8, failed=2).to_json()
    (point,) = build_robustness(SPHERE, given)["curve"]
    assert point["missing"]["ers"] == ["LTM"]
    assert (point["figures"]["ers"]["value"], point["figures"]["ers"]["undefined"], point["figures"]["ers"]["failed"]) == (
        None, 8, 2,
    )  # fmt: skip


def test_the_legacy_score_has_two_parts_as_published() -> None:
    values = PUBLISHED["EST"][0]
    (point,) = build_robustness(SPHERE, threats(values, legacy={"ltm-legacy": 48.0, "gtm-legacy": 30.8}))["curve"]
    ours, legacy = (point["figures"][name]["value"] for name in ("ers", "ers-legacy"))
    assert legacy - ours == pytest.approx((48.0 - 28.0 + 30.8 - 20.8) / 10)
    differing = [row["part"] for row in point["parts"] if row["ers"]["threat"] != row["ers-legacy"]["threat"]]
    assert differing == ["LTM", "GTM"]


def test_every_tested_eps_has_its_score() -> None:
    low, high = threats(PUBLISHED["EST"][0]), threats(PUBLISHED["ACT"][0])
    for one, other in zip(low, high, strict=True):
        other["curve"][1]["eps"] = 0.1
        one["curve"].append(other["curve"][1])
    curve = build_robustness(SPHERE, low)["curve"]
    assert [(point["eps"], round(point["figures"]["ers"]["value"], 1)) for point in curve] == [(0.1, 63.3), (0.3, 38.7)]


@pytest.mark.parametrize(
    ("subject", "refused"),
    [
        ({"similarity": "cosine", "lengths": [0.3, 7.0]}, False),
        ({"similarity": "euclidean", "lengths": [0.9999, 1.0001]}, False),
        ({"similarity": "euclidean", "lengths": [0.9, 1.0]}, True),
        ({"similarity": "euclidean", "lengths": [1.0, 14.0]}, True),
        ({"similarity": "euclidean"}, True),
    ],
)
def test_off_the_unit_sphere_two_parts_mean_nothing(subject: dict[str, Any], refused: bool) -> None:
    built = build_robustness(subject, threats(PUBLISHED["EST"][0]))
    (point,) = built["curve"]
    scored = [row["part"] for row in point["parts"] if row["ers"]["score"] is not None]
    assert all(row["ers"]["measured"] is not None for row in point["parts"]), "what was measured is told all the same"
    if refused:
        assert "unit sphere" in built["refused"]
        assert "normalise the embeddings" in built["refused"]
        assert [part.name for part in PARTS if part.name not in scored] == ["TMA", "ES:D"]
        assert point["figures"]["ers"]["value"] is None
        assert point["missing"]["ers"] == []
    else:
        assert built["refused"] is None
        assert len(scored) == 10
        assert round(point["figures"]["ers"]["value"], 1) == 38.7


def test_gates_may_ask_for_a_score() -> None:
    values = PUBLISHED["EST"][0]
    built = build_robustness(SPHERE, threats(values, legacy={"ltm-legacy": 48.0, "gtm-legacy": 30.8}))
    summary = {"clean": {}, "threats": [], "robustness": built}
    assert parse_gate("ers >= 38").check(summary).passed
    assert not parse_gate("ers@0.3 >= 39").check(summary).passed
    assert parse_gate("ers-legacy >= 41").check(summary).passed
    with pytest.raises(ConfigError, match=r"ε 0\.1 is not tested"):
        parse_gate("ers@0.1 >= 39").find(summary)
    planned = {"clean": {}, "threats": [], "robustness": planned_robustness((), (0.3,), suite="ers")}
    assert [place for place, _ in parse_gate("ers >= 38").find(planned)] == ["ers at ε 0.3"]
    with pytest.raises(ConfigError, match="no figure 'ers'"):
        parse_gate("ers >= 38").find({"clean": {}, "threats": [], "robustness": None})
    del built["curve"][0]["figures"]["ers"]["value"]
    built["curve"][0]["figures"]["ers"] |= {"value": None, "n": 0, "ci": None}
    assert not parse_gate("ers >= 0").check(summary).passed


def test_a_run_is_about_the_score_when_asked_or_complete() -> None:
    names = {part.threat for part in PARTS}
    assert planned_robustness(names, (0.1, 0.3), suite="") is not None
    assert planned_robustness(names - {"gtt"}, (0.1,), suite="") is None
    assert planned_robustness((), (0.1,), suite="ers") is not None
