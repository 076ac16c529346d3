"""Protocols of several models: each is trained as it says, attacked where columns say, and scored from its cells."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embattle import data
from embattle.cli.experiment import experiment
from embattle.embedders import load_checkpoint
from embattle.errors import ConfigError, RunMismatch
from embattle.protocols import PROTOCOLS, Column, Model, Protocol, Scale, SignSteps, reproduce
from embattle.protocols.study import Study
from embattle.records import LocalStore

EPS = 0.2
# Scenario, metric, and the score of the metric's mean.
PARTS = (
    ("ca+.w1", "rank", lambda mean: 2 * mean), ("ca-.w1", "rank", lambda mean: 100 - mean),
    ("qa+.m1", "rank", lambda mean: 2 * mean), ("qa-.m1", "rank", lambda mean: 100 - mean),
    ("tma", "cosine", lambda mean: 100 * (1 - mean)), ("es", "max_shift", lambda mean: 50 * (2 - mean)),
    ("es", "recall@1", lambda mean: mean), ("ltm", "recall@1", lambda mean: mean),
    ("gtm", "recall@1", lambda mean: mean), ("gtt", "retain@4", lambda mean: mean),
    ("ltm-legacy", "recall@1", lambda mean: mean), ("gtm-legacy", "recall@1", lambda mean: mean),
)  # fmt: skip
INNER = {"eps": EPS, "steps": 1, "step_size": EPS, "batch_size": 64}
MODELS = {
    "none": Model(network="small", training={"batch_size": 64}, recall=90.0),
    "fare": Model(network="small", training={"defense": "fare", **INNER, "lr": 1e-5}, start="none"),
    "other": Model(network="small", training={"batch_size": 64}, shift=2),
}


def scored(**changes: Any) -> Protocol:
    columns = tuple(
        Column(scenario=scenario, metric=metric, rises=False, crafted_on=model, judged_on=model,
               label=f"{scenario} {metric} {model}")
        for model in ("none", "fare") for scenario, metric, _ in PARTS
    )  # fmt: skip
    given = {
        "name": "scored", "title": "Scores on the digits", "paper": "none", "data": "digits", "models": MODELS,
        "columns": columns, "eps": (EPS,), "published": {}, "differs": (), "adaptive": False,
        "steps": SignSteps(steps=3, step_size=EPS / 2), "scores": {"none": 4.2, "fare": None},
        "scales": {
            "cpu": Scale(
                attacked=5, epochs=1, seeds=(0,), training_pictures=200, gallery=60, hardening={"precision": "bfloat16"}
            )
        },
    }  # fmt: skip
    return Protocol(**(given | changes))


Finished = tuple[Path, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("scored")
    run, result = reproduce(scored(), "cpu", models=folder / "models", out=folder / "run")
    return run.path, folder / "models", result


def test_scores_are_the_mean_of_the_ten_scores_of_a_models_own_samples(finished: Finished) -> None:
    run, _, result = finished
    store = LocalStore(run)
    rows = [row for unit in store.done() for row in store.rows(unit) if row["row"] == "sample" and row["role"] == "paper"]
    assert [(row["model"], row["paper"]) for row in result["robustness"]] == [("none", 4.2), ("fare", None)]
    for row in result["robustness"]:
        of_model = [each for each in rows if each["column"].endswith(f" {row['model']}")]
        scores = {
            (scenario, metric): line(np.mean([
                each["metrics"][metric] for each in of_model if each["column"].split()[0] == scenario
            ]))
            for scenario, metric, line in PARTS
        }  # fmt: skip
        legacy = {key: value for key, value in scores.items() if key[0] not in ("ltm", "gtm")}
        corrected = {key: value for key, value in scores.items() if not key[0].endswith("-legacy")}
        assert len(legacy) == len(corrected) == 10
        assert row["ers"]["value"] == pytest.approx(np.mean(list(corrected.values())))
        assert row["ers-legacy"]["value"] == pytest.approx(np.mean(list(legacy.values())))
        low, high = row["ers"]["ci"]
        assert low < row["ers"]["value"] < high
    text = (run / "result.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| none | 0.2 |"))
    assert f"{result['robustness'][0]['ers']['value']:.1f} [" in line
    assert line.endswith("| 4.2 |")
    assert "(none, seed 0)" in text
    assert "paper none 90 %" in text


def test_how_long_each_was_trained_stands_in_the_result(finished: Finished) -> None:
    run, models, result = finished
    text = (run / "result.md").read_text(encoding="utf-8")
    histories = {path.name: path.read_text(encoding="utf-8").splitlines() for path in models.glob("*.history.jsonl")}
    assert len(histories) == 3
    for model in result["models"]:
        times = [[json.loads(line)["seconds"] for line in lines] for lines in histories.values()]
        assert (model["epochs"], model["epoch_seconds"]) in [(len(each), statistics.median(each)) for each in times]
        assert f"{model['epochs']} epoch(s) of {model['epoch_seconds']:.0f} s ({model['name']}, seed 0)" in text


def test_every_model_is_trained_as_it_says(finished: Finished) -> None:
    _, models, result = finished
    assert [(model["name"], model["seed"]) for model in result["models"]] == [("none", 0), ("fare", 0), ("other", 0)]
    assert len({model["fingerprint"] for model in result["models"]}) == 3
    kept = {path.name: load_checkpoint(path) for path in models.glob("*.safetensors")}
    assert sorted(kept) == [
        "digits-small-triplet-cosine-1epochs-200pictures-batchsize64-seed0.safetensors",
        "digits-small-triplet-cosine-1epochs-200pictures-batchsize64-seed2.safetensors",
        "digits-small-triplet-cosine-1epochs-200pictures-fare-eps0.2-1steps-bfloat16-batchsize64-lr1e-05-stepsize0.2"
        "-from-none-seed0.safetensors",
    ]
    plain, other, fare = (
        torch.cat([p.detach().flatten() for p in kept[name].module.parameters()]) for name in sorted(kept)
    )
    # A few steps of 1e-5 lead no further than that; fresh weights would be as far as another seed's.
    assert 0 < float((fare - plain).abs().max()) < 1e-3 < 0.05 < float((other - plain).abs().max())


def test_a_training_waits_for_the_model_it_starts_from(finished: Finished) -> None:
    store = LocalStore(finished[0])
    trained = {unit.params["model"]: unit for unit in map(store.unit, store.done()) if unit.kind == "train"}
    assert trained["fare"].needs == (trained["none"].id,)
    assert trained["none"].needs == trained["other"].needs == ()
    assert trained["fare"].params["train"]["start"]["batch_size"] == 64


def test_what_a_model_starts_from_is_part_of_the_run(finished: Finished) -> None:
    run, models, _ = finished
    changed = {**MODELS, "none": Model(network="small", training={"batch_size": 32})}
    with pytest.raises(RunMismatch, match=r"models.none.batch_size is 64 there and 32 here"):
        reproduce(scored(models=changed), "cpu", models=models, out=run)


def test_models_that_nobody_trains_are_refused() -> None:
    column = Column(scenario="ca+.w1", rises=False, crafted_on="nobody", judged_on="none")
    with pytest.raises(ConfigError, match="scored names models that it does not train: nobody"):
        scored(columns=(column,))
    with pytest.raises(ConfigError, match="does not train: elsewhere"):
        scored(models={**MODELS, "fare": replace(MODELS["fare"], start="elsewhere")})
    euclidean = replace(MODELS["none"], training={"similarity": "euclidean"})
    with pytest.raises(ConfigError, match="scores none: robustness scores are defined for the cosine only"):
        scored(models={**MODELS, "none": euclidean})


def test_checkpoints_of_different_trainings_have_different_names() -> None:
    """Of every protocol: a shared folder must not mix them up."""
    pictures = data.load("digits")
    names: dict[str, Any] = {}
    for entry in PROTOCOLS:
        found: Protocol = entry.build()
        for label, scale in found.scales.items():
            study = Study(
                protocol=found, scale=scale, pictures=pictures, gallery=pictures, models=Path("models"),
                device=torch.device("cpu"), folder=lambda: LocalStore(Path("unused")),
            )  # fmt: skip
            for model in found.models:
                training = study.training(model, 0).model_dump()
                known = names.setdefault(str(study.checkpoint(model, 0)), training)
                assert known == training, (entry.name, label, model)
    assert len(names) > 20


def test_the_description_names_every_model() -> None:
    shown = experiment(PROTOCOLS["robustness-scores"])
    assert "fare (c2f2): from none; batch size 128" in shown  # and no loss: it has none
    assert "on each of: none, est, act, hm, hm-ics, hm-constant, fare, est-cosine" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
