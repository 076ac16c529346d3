"""Table 4: what stands in for the paper's data, when its own is used instead, and that both are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from embattle import data
from embattle.cli.app import run as main
from embattle.cli.experiment import experiment
from embattle.data.online_products import COLUMNS, LISTS
from embattle.embedders import load_checkpoint
from embattle.protocols import PROTOCOLS, Model, Protocol, Scale, protocol, reproduce
from embattle.training import TrainConfig

NAMES = ("ranking-table-4", "ranking-table-4-defended")
SIDE = 32


@pytest.fixture(scope="session")
def sop_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small Stanford Online Products: 20 products for training, 20 for testing, 3 pictures each."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "Stanford_Online_Products" / "mug_final"
    folder.mkdir(parents=True)
    number = 0
    for first, name in ((1, LISTS["train"]), (21, LISTS["test"])):
        lines = [" ".join(COLUMNS)]
        for product in range(first, first + 20):
            for view in range(3):
                number += 1
                colour = (6 * product, 250 - 6 * product, 20 * view)
                Image.new("RGB", (40 + view, 40), colour).save(folder / f"{product}_{view}.JPG", "JPEG")
                lines.append(f"{number} {product} 8 mug_final/{product}_{view}.JPG")
        (folder.parent / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def either(tiny_as: Callable[..., Protocol]) -> Protocol:
    """The tiny protocol on the digits at another size, which runs on SOP where that is at hand."""
    scales = {"cpu": Scale(attacked=2, epochs=1, seeds=(0,), training_pictures=60, gallery=40, size=SIDE, judged=False)}
    stand_in = tiny_as(scales=scales, adaptive=False)
    columns = tuple(replace(column, width=1) for column in stand_in.columns)
    models = {"small": Model(network="small", training={"similarity": "euclidean", "batch_size": 30})}
    return replace(
        stand_in, original=replace(stand_in, data="sop", columns=columns, models=models, title="On its own data")
    )


def test_the_stand_in_runs_and_is_told_where_the_papers_data_is_not(either: Protocol, tmp_path: Path) -> None:
    said: list[str] = []
    run, result = reproduce(either, models=tmp_path, out=tmp_path / "run", data_root=tmp_path / "none", tell=said.append)
    assert result["data"] == "digits"
    note = "The paper's own data, sop, does not lie in the data root: digits stands in for it."
    assert said == result["notes"] == [note]
    text = (run.path / "result.md").read_text(encoding="utf-8")
    assert f"- {note}" in text
    assert str(tmp_path) not in text.replace(str(run.path), "")
    assert "all pictures at 32 x 32 pixels" in text
    assert "**Not judged: data or training are not the paper's." in text
    assert {cell["verdict"] for cell in result["cells"]} == {None}
    assert any(cell["difference"] for cell in result["cells"])


def test_the_papers_data_is_used_where_it_lies_in_the_data_root(either: Protocol, sop_root: Path, tmp_path: Path) -> None:
    run, result = reproduce(either, models=tmp_path / "models", out=tmp_path / "run", data_root=sop_root)
    assert (result["data"], result["title"], result["size"]) == ("sop", "On its own data", SIDE)
    assert result["notes"] == ["The paper's own data, sop, lies in the data root and is used."]
    assert result["complete"]
    assert {cell["attainable"] for cell in result["cells"]} == {None}
    (model,) = (tmp_path / "models").glob("*.safetensors")
    assert model.name == "sop-small-triplet-euclidean-1epochs-60pictures-32px-batchsize30-seed0.safetensors"
    embedder = load_checkpoint(model)
    assert embedder.similarity.name == "euclidean"
    # The clean ranks of CA+, counted by hand in the gallery of test products.
    gallery = data.load("sop", root=sop_root, size=SIDE).some(40)
    z = embedder.embed(gallery.images).double()
    from embattle.records import LocalStore
    from embattle.scenarios import Subject, named

    subject = Subject.of(embedder, gallery, k=10, keep_own=True)
    store = LocalStore(run.path)
    rows = [row for unit in store.done() for row in store.rows(unit)]
    clean = [row for row in rows if row["row"] == "sample" and (row["column"], row["role"]) == ("ca+.w1", "clean")]
    places = gallery.positions([row["sample"] for row in clean])
    queries = named("ca+.w1").aims(subject, places, 0)["queries"][:, 0]
    for row, place, query in zip(clean, places.tolist(), queries.tolist(), strict=True):
        distance = torch.linalg.vector_norm(z - z[query], dim=1)
        counted = 100 * float((distance < distance[place] - 1e-9).double().mean())
        assert row["metrics"]["rank"] == pytest.approx(counted, abs=100.1 / 40)


def test_the_command_says_which_data_it_runs_on(
    either: Protocol, sop_root: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS._entries, "tiny", replace(PROTOCOLS["ranking-table-1"], build=lambda: either))
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "tiny", "--data-root", str(sop_root), "--out", str(tmp_path / "run")]) == 0
    assert "The paper's own data, sop, lies in the data root and is used." in capfd.readouterr().err
    told = experiment(PROTOCOLS["tiny"])
    instead = told.partition("\nInstead, where sop lies in the data root\n")[2]
    assert instead.lstrip().startswith("small: similarity euclidean; batch size 30\n")
    assert told.count("1 epoch on 60 pictures at 32 x 32 pixels") == 2


@pytest.mark.parametrize("name", NAMES)
def test_table_4_is_a_euclidean_resnet_on_clothing_or_on_sop(name: str) -> None:
    found = protocol(name)
    original = found.original
    assert original is not None
    assert original.original is None
    assert (found.data, original.data) == ("clothing", "sop")
    assert found.published == original.published
    assert set(original.scales) == set(found.scales)
    for each in (found, original):
        assert len(each.columns) == 16
        (model,) = each.models.values()
        assert (model.network, model.recall) == ("resnet18", 40.2 if name.endswith("defended") else 63.1)
        settings = {key: value for key, value in model.training.items() if key in TrainConfig.model_fields}
        config = TrainConfig.parse(settings)
        assert (config.similarity, config.margin, config.batch_size) == ("euclidean", 1.0, 128)
        assert ("defense" in model.training) == name.endswith("defended")
    # A figure on other data, or of little training, gets no verdict.
    assert [scale for scale in found.scales.values() if scale.judged] == []
    assert [label for label, scale in original.scales.items() if scale.judged] == ["paper"]
    assert any("clothing stands in for SOP" in sentence for sentence in found.differs)
    assert not any("stands in" in sentence for sentence in original.differs)
    assert any("ImageNet" in sentence for sentence in original.differs)


def test_the_defense_takes_the_papers_steps() -> None:
    from embattle.attacks import ranking_steps

    training = protocol("ranking-table-4-defended").models["resnet18"].training
    size, steps = ranking_steps(training["eps"])
    assert (training["step_size"], training["steps"]) == (pytest.approx(size), steps)
