"""Two runs beside each other: pairing, what counts as a change, and what is refused."""

import json
import shutil
import statistics

import pytest

from embattle.errors import InputError
from embattle.records import LocalStore, build_comparison, comparison
from embattle.report.comparison import change, comparison_html, comparison_markdown, headline, write_comparison


@pytest.fixture
def runs(tmp_path, write_example_run):
    first = as_audit(write_example_run(tmp_path / "a"))
    second = tmp_path / "b"
    shutil.copytree(first, second)
    return first, second


def as_audit(run, **changed):
    """The example's configuration as an audit writes it, with another hash where it is changed."""
    content = json.loads((run / "config.json").read_bytes())
    content["config"] = {"audit": {"k": 10}, "gallery": {"fingerprint": "g"}, "model": {"fingerprint": "m"}} | changed
    (run / "config.json").write_text(json.dumps(content))
    return run


def rewrite(run, edit):
    """Edits the sample rows of every unit, keeping the files well formed."""
    store = LocalStore(run)
    for unit in sorted(store.done()):
        rows = [dict(row) for row in store.rows(unit)]
        others = [row for row in rows if row["row"] not in ("sample", "finding")]
        described, cost = store.unit(unit), store.cost(unit)
        for file in (run / "units").glob(f"{unit[:16]}*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        store.put(described, others + edit([row for row in rows if row["row"] == "sample"]), {}, cost)


def test_a_run_beside_itself_shows_no_change(runs):
    found = build_comparison(*runs)
    assert found["paired"]
    told = [change(cell["difference"]) for _, cell in cells(found)]
    assert told
    assert set(told) <= {"no change seen", "not compared"}
    assert not found["settings"]


def cells(comparison):
    return [
        ((threat["threat"], point["eps"], name), cell)
        for threat in comparison["threats"]
        for point in threat["points"]
        for name, cell in point["figures"].items()
    ]


def test_differences_are_means_over_the_same_pictures(runs):
    first, second = runs
    metric = "rank"

    def worse(rows):
        # Turned round, with one picture in ten left out: whoever pairs by position or subtracts two means is wrong.
        for row in rows:
            if row["metrics"][metric] is not None:
                row["metrics"][metric] += 1.0 + int(row["sample"][-1])
        return [row for row in rows[::-1] if row["sample"][-1] != "7"]

    rewrite(second, worse)
    found = dict(cells(build_comparison(first, second)))
    for (threat, eps, name), cell in found.items():
        if name != metric:
            continue
        a, b = (
            {row["sample"]: row["metrics"][metric] for unit in LocalStore(run).done() for row in LocalStore(run).rows(unit)
             if row["row"] == "sample" and (row["threat"], row["eps"]) == (threat, eps)}
            for run in runs
        )  # fmt: skip
        expected = statistics.fmean(b[sample] - a[sample] for sample in a.keys() & b.keys() if a[sample] is not None)
        assert 4 < expected < 6
        assert cell["difference"]["value"] == pytest.approx(expected)
        assert cell["difference"]["ci"][0] > 0


def test_a_change_is_named_from_the_owners_side():
    better = {"value": 2.0, "ci": [1.0, 3.0], "higher_is_better": True}
    assert change(better) == "harder"
    assert change(better | {"higher_is_better": False}) == "easier"
    assert change(better | {"ci": [-0.1, 3.0]}) == "no change seen"
    assert change(better | {"ci": None}) == "not compared"
    assert change(None) == "not compared"
    # What broke the model is no comfort; where the others became easier, that is said.
    assert change(better | {"failed": 1}) == change(better | {"ci": None, "failed": 9}) == "broken pictures"
    assert change(better | {"ci": [-0.1, 3.0], "failed": 1}) == "broken pictures"
    assert change(better | {"higher_is_better": False, "failed": 1}) == "easier"


def test_pictures_that_broke_the_model_are_counted_and_not_left_out(runs):
    first, second = runs

    def breaks(rows):
        for row in rows:
            if row["sample"][-1] in "05":
                row |= {"status": "non_finite", "success": False, "metrics": dict.fromkeys(row["metrics"])}
        return rows

    rewrite(second, breaks)
    found = build_comparison(first, second)
    attacked = [
        cell["difference"] for (_, eps, _), cell in cells(found) if eps and cell["difference"] is not None
    ]  # fmt: skip
    assert attacked
    for difference in attacked:
        assert difference["failed"] > 0
        assert change(difference) in ("broken pictures", "easier")
    assert "broken pictures" in headline(found)


def test_other_galleries_are_not_paired(runs):
    first, second = runs
    as_audit(second, gallery={"fingerprint": "another"}, audit={"k": 5})
    found = build_comparison(first, second)
    assert not found["paired"]
    assert all(cell["difference"] is None for _, cell in cells(found))
    assert any("audit.k is 10 there and 5 here" in told for told in found["settings"])
    assert "cannot be paired" in comparison_markdown(found)


def test_the_page_escapes_names_and_is_written_whole(runs, tmp_path):
    found = build_comparison(*runs, names=("<b>old</b>", "new"))
    page = write_comparison(tmp_path / "out", found)
    text = page.read_text(encoding="utf-8")
    assert text == comparison_html(found)
    assert "<b>old</b>" not in text
    assert "&lt;b&gt;old&lt;/b&gt;" in text
    assert "<svg" in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert (tmp_path / "out" / "comparison.json").exists()
    assert "Clean recall@1" in headline(found)


def test_what_is_no_audit_is_refused(runs, tmp_path):
    first, second = runs
    with pytest.raises(InputError, match="does not exist"):
        build_comparison(first, tmp_path / "nothing")
    content = json.loads((second / "config.json").read_bytes())
    content["config"] = {"protocol": "ranking-table-1"}
    (second / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is no audit"):
        build_comparison(first, second)


@pytest.mark.parametrize(
    ("before", "after", "told", "collapsed"),
    [
        (0.8, 0.004, "80 % in A and 0.4 % in B", "The model of B has nearly collapsed"),
        (0.004, 0.8, "0.4 % in A and 80 % in B", "The model of A has nearly collapsed"),
        (0.8, 0.5, "80 % in A and 50 % in B", None),
        (0.8, None, None, None),
    ],
)
def test_a_model_that_gives_all_pictures_nearly_one_embedding_is_told(runs, before, after, told, collapsed):
    found = build_comparison(*runs)
    for run, spread in zip(found["runs"], (before, after), strict=True):
        run["subject"] = dict(run["subject"]) | ({} if spread is None else {"spread": spread})
    text = comparison_markdown(found)
    assert (told is None) == ("of their length" not in text)
    assert told is None or told in text
    assert (collapsed is None) == ("nearly collapsed" not in text)
    assert collapsed is None or collapsed in text


def score(value):
    return {"value": value, "ci": [value - 5, value + 5], "unit": "", "n": 8, "undefined": 0, "failed": 0}


def scored(values, *, masked=False):
    """What a summary says of the score; `values` are ERS, ERS-legacy, and the parts CA+ and GTM (ours, as published)."""
    ers, legacy, ca, ours, published = map(score, values)
    parts = [
        {"part": "CA+", "ers": {"threat": "ca+.w1", "score": ca}, "ers-legacy": {"threat": "ca+.w1", "score": ca}},
        {
            "part": "GTM",
            "ers": {"threat": "gtm", "score": ours},
            "ers-legacy": {"threat": "gtm-legacy", "score": published},
        },
    ]
    checks = [{"check": "the loss is not flat", "status": "FAIL" if masked else "ok"}]
    return {"curve": [{"eps": 0.3, "figures": {"ers": ers, "ers-legacy": legacy}, "parts": parts}], "masking": checks}


def test_scores_are_laid_beside_each_other_with_their_parts(runs, monkeypatch):
    given = iter([scored((40, 50, 60, 10, 20)), scored((45, 52, 70, 11, 21), masked=True)])
    build = comparison.build_summary
    monkeypatch.setattr(comparison, "build_summary", lambda run: build(run) | {"robustness": next(given)})
    found = build_comparison(*runs)
    text = comparison_markdown(found)
    for line in (
        "| ERS | 40.0 [35.0, 45.0] | 45.0 [40.0, 50.0] |", "| ERS-legacy | 50.0 [45.0, 55.0] | 52.0 [47.0, 57.0] |",
        "| CA+ | 60.0 [55.0, 65.0] | 70.0 [65.0, 75.0] |", "| GTM | 10.0 [5.0, 15.0] | 11.0 [6.0, 16.0] |",
        "| GTM, as published | 20.0 [15.0, 25.0] | 21.0 [16.0, 26.0] |",
    ):  # fmt: skip
        assert line in text
    assert text.count("| CA+ |") == 1, "what both scores share is told once"
    assert "ERS 40.0 [35.0, 45.0] → 45.0 [40.0, 50.0] (gradients of B look masked: not to be believed)." in headline(found)
    assert "GTM, as published" in comparison_html(found)


def test_without_a_score_nothing_is_said_of_it(runs):
    found = build_comparison(*runs)
    assert found["robustness"] is None
    assert "ERS" not in comparison_markdown(found)


def test_the_headline_tells_success_rates_from_how_far_attacks_come(runs):
    found = build_comparison(*runs)
    assert headline(found).startswith("Attacks on B: success rates ")
    assert "; how far they come " in headline(found)


def test_pairs_are_counted_and_too_few_of_them_have_no_interval(runs):
    found = build_comparison(*runs)
    (header,) = [line for line in comparison_markdown(found).splitlines() if line.startswith("| Threat")]
    assert "| Difference | Pairs | Change |" in header
    cell = next(cell for (_, eps, name), cell in cells(found) if eps and name == "success" and cell["difference"])
    assert f"| 0.0 % | {cell['difference']['n']} | no change seen |" in comparison_markdown(found)
