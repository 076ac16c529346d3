"""What every registered defense must hold."""

import pytest
import torch
from torch import nn

import embattle as eb
from embattle.data import ImageSet
from embattle.defenses import DEFENSES, HardenConfig, InnerAttack, harden
from embattle.embedders import Embedder
from embattle.errors import ConfigError, DataError, ModelError, RunMismatch
from embattle.training import WeightsFile
from embattle.training.losses.contrastive import Contrastive

NAMES = [entry.name for entry in DEFENSES]


@pytest.mark.parametrize("entry", list(DEFENSES), ids=lambda entry: entry.name)
def test_a_defense_says_what_it_is(entry):
    assert entry.summary.endswith(".")
    assert entry.paper
    assert entry.access == "gradient"
    assert entry.example().name == entry.name


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_reaches_the_weights_and_the_attack_leaves_no_trace(
    name, embedder, make_embedder, make_batch, make_defense, monkeypatch
):
    moved, attack = [], InnerAttack.__call__

    def watched(self, member, x, *rest):
        found = attack(self, member, x, *rest)
        moved.append(float((found - x).abs().amax()))
        return found

    monkeypatch.setattr(InnerAttack, "__call__", watched)
    module = embedder.module.train()
    module[1].weight.requires_grad_(False)
    state, draws = [p.detach().clone() for p in module.parameters()], torch.get_rng_state()
    loss = make_defense(name, original=make_embedder(seed=5)).loss(embedder, make_batch())
    assert moved
    assert min(moved) > 0.01
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert all(p.grad is None for p in module.parameters())
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True]
    assert all(layer.training for layer in module.modules())
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(torch.equal(a, b) for a, b in zip(state, module.parameters(), strict=True))
    loss.backward()
    assert float(module[3].weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_equal_batches_give_equal_losses_and_another_batch_another(name, make_embedder, make_batch, make_defense):
    def once(number):
        defense = make_defense(name, original=make_embedder(seed=5))
        return float(defense.loss(make_embedder(), make_batch(number=number)).detach())

    assert once(0) == once(0)
    if DEFENSES[name].build.needs_labels:
        assert once(0) != once(1)


@pytest.mark.parametrize("name", NAMES)
def test_a_defense_hardens_and_the_given_model_stays(name, embedder, pictures, tmp_path):
    before = embedder.fingerprint
    config = HardenConfig.parse(
        {"defense": name, "eps": 0.1, "steps": 2, "epochs": 2, "batch_size": 30, "threads": 1, "lr": 1e-2}
    )
    result = harden(config, embedder, pictures, tmp_path / "hard.safetensors")
    assert embedder.fingerprint == before
    assert result.embedder.fingerprint != before
    assert torch.equal(
        WeightsFile(base=embedder).load(result.path).embed(pictures.images), result.embedder.embed(pictures.images)
    )
    again = harden(config, embedder, pictures, tmp_path / "again.safetensors")
    assert again.path.read_bytes() == result.path.read_bytes()


def test_a_stopped_hardening_goes_on_bit_equal(embedder, pictures, tmp_path):
    config = HardenConfig.parse({"defense": "hm", "eps": 0.1, "steps": 2, "epochs": 3, "batch_size": 30, "threads": 1})

    def stop(progress):
        if (progress.epoch, progress.batch) == (3, 1):
            raise KeyError("stop")

    whole = harden(config, embedder, pictures, tmp_path / "whole.safetensors")
    out = tmp_path / "cut.safetensors"
    with pytest.raises(KeyError):
        harden(config, embedder, pictures, out, progress=stop)
    resumed = harden(config, embedder, pictures, out)
    assert resumed.resumed_after == 2
    assert out.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("name", [n for n in NAMES if DEFENSES[n].build.needs_labels])
def test_labels_are_asked_for_where_they_are_needed(name, embedder, pictures, tmp_path):
    bare = ImageSet(name="bare", images=pictures.images, labels=None, ids=pictures.ids)
    with pytest.raises(DataError, match=r"bare has no labels, and .* take a defense that needs none: fare"):
        harden(HardenConfig.parse({"defense": name, "threads": 1}), embedder, bare, tmp_path / "m.safetensors")


def test_fare_needs_no_labels_but_a_model(embedder, pictures, make_defense, tmp_path):
    bare = ImageSet(name="bare", images=pictures.images, labels=None, ids=pictures.ids)
    config = HardenConfig.parse({"defense": "fare", "steps": 2, "epochs": 1, "threads": 1})
    assert harden(config, embedder, bare, tmp_path / "m.safetensors").history
    with pytest.raises(ConfigError, match="--model"):
        make_defense("fare")


@pytest.mark.parametrize("name", ["act", "hm", "hm-constant", "hm-ics", "madry"])
def test_attacks_on_triplets_refuse_other_losses(name, make_embedder, make_batch, make_defense):
    from dataclasses import replace

    defense = make_defense(name, original=make_embedder())
    with pytest.raises(ConfigError, match="attacks triplets and cannot train with Contrastive"):
        replace(defense, metric_loss=Contrastive(similarity=defense.metric_loss.similarity, margin=0.2)).loss(
            make_embedder(), make_batch()
        )


def test_batch_norm_is_frozen_unless_told_otherwise(pictures, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6))
    start = Embedder(module, channels=1)
    norms = {name for name, _ in module.named_buffers() if "running" in name}
    found = {}
    for policy in ("frozen", "train"):
        config = HardenConfig.parse({"defense": "est", "steps": 1, "epochs": 1, "threads": 1, "batch_norm": policy})
        hard = harden(config, start, pictures, tmp_path / f"{policy}.safetensors").embedder
        before, after = dict(start.module.named_buffers()), dict(hard.module.named_buffers())
        found[policy] = all(torch.equal(before[name], after[name]) for name in norms)
    assert found == {"frozen": True, "train": False}


def test_a_collapse_is_called_one_and_the_last_good_epoch_stays(embedder, pictures, tmp_path):
    config = HardenConfig.parse({"defense": "fare", "steps": 1, "epochs": 3, "batch_size": 60, "threads": 1})

    def collapse(progress):
        # After the second epoch's only step, as a training that has found the trivial solution would leave it.
        if progress.epoch == 2:
            for parameter in holder[0].parameters():
                parameter.data.zero_()

    holder = []
    original = HardenConfig.step

    def step(self, model):
        defense = original(self, model)
        loss = type(defense).loss

        def watched(self, learner, batch):
            holder[:] = [learner.module]
            return loss(self, learner, batch)

        return type("Watched", (type(defense),), {"loss": watched})(
            inner=defense.inner, metric_loss=defense.metric_loss, original=defense.original
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HardenConfig, "step", step)
        with pytest.raises(ModelError, match=r"after epoch 2 of training, .*state after epoch 1 is kept"):
            harden(config, embedder, pictures, tmp_path / "m.safetensors", progress=collapse)
    assert (tmp_path / "m.state.safetensors").exists()
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"defense": "esst"}, "did you mean est"),
        ({"defense": "est", "eps": 2}, r"ε = 2 is outside \(0, 1\]; .*for n grey levels write n/255"),
        ({"defense": "est", "eps": 0}, r"^ε = 0 is outside"),
        ({"defense": "est", "eps": True}, "eps 'True' is not a number"),
        ({"defense": "est", "eps": "8/0"}, "8/0"),
        ({"defense": "est", "steps": 0}, "steps"),
        ({"defense": "est", "step_size": "x"}, "step_size"),
        ({"defense": "est", "batch_norm": "off"}, "batch_norm"),
        ({"defense": "est", "epsilon": 0.1}, "no setting 'epsilon'"),
        ({}, "no defense is named; give one of: act, est, fare, hm, hm-constant, hm-ics, madry"),
        ({"defense": "fare", "loss": "contrastive"}, "has no metric loss; leave out loss = contrastive"),
        ({"defense": "fare", "margin": 0.7}, "leave out margin = 0.7"),
        ({"defense": "fare", "similarity": "euclidean", "margin": 0.2}, "leave out margin = 0.2"),
    ],
)
def test_settings_that_are_not_allowed_are_named(settings, told):
    with pytest.raises(ConfigError, match=told):
        HardenConfig.parse(settings)


def test_fresh_weights_need_a_known_network(embedder, pictures, tmp_path):
    config = HardenConfig.parse({"defense": "est", "fresh": True, "threads": 1})
    with pytest.raises(ConfigError, match="leave fresh out"):
        harden(config, embedder, pictures, tmp_path / "m.safetensors")


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_a_defense_without_a_metric_loss_takes_the_settings_it_was_given(similarity):
    config = HardenConfig.parse({"defense": "fare", "similarity": similarity})
    assert HardenConfig.parse(config.model_dump()) == config


def test_a_network_is_for_fresh_weights(embedder, pictures, tmp_path):
    config = HardenConfig.parse({"defense": "est", "network": "resnet18", "threads": 1})
    with pytest.raises(ConfigError, match="leave it out, or set fresh"):
        harden(config, embedder, pictures, tmp_path / "m.safetensors")


def test_fare_from_fresh_weights_is_another_training_for_another_original(make_embedder, pictures, tmp_path):
    """The weights that it starts from are equal; whose embeddings are kept tells the trainings apart."""
    config = HardenConfig.parse(
        {"defense": "fare", "fresh": True, "network": "small", "steps": 1, "epochs": 1, "threads": 1}
    )  # fmt: skip
    images = torch.nn.functional.interpolate(pictures.images, size=(32, 32))
    pictures = ImageSet(name="large", images=images, labels=pictures.labels, ids=pictures.ids)
    originals = [eb.Embedder(eb.networks.build("small"), channels=1, size=(32, 32)) for _ in range(2)]
    assert originals[0].fingerprint != originals[1].fingerprint
    out = tmp_path / "m.safetensors"
    first = harden(config, originals[0], pictures, out)
    assert harden(config, originals[0], pictures, out).embedder.fingerprint == first.embedder.fingerprint
    with pytest.raises(RunMismatch, match="other settings"):
        harden(config, originals[1], pictures, out)


def test_a_bare_module_is_refused_with_what_to_write(pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"not a Flatten; write embattle.Embedder\(module"):
        harden(HardenConfig.parse({"defense": "est"}), nn.Flatten(), pictures, tmp_path / "m.safetensors")
