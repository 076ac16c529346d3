"""The configuration: defaults that follow the similarity, sentences for what is wrong, an identity."""

import pytest
from pydantic import ValidationError

from embattle.errors import ConfigError
from embattle.training import TrainConfig


def test_defaults_are_the_papers_for_each_similarity():
    cosine, euclidean = TrainConfig(), TrainConfig(similarity="euclidean")
    assert (cosine.margin, cosine.batch_size) == (0.2, 1000)
    assert (euclidean.margin, euclidean.batch_size) == (1.0, 500)
    for config in (cosine, euclidean):
        assert (config.network, config.loss, config.epochs, config.lr, config.weight_decay) == (
            "c2f1", "triplet", 30, 1e-3, 1e-7,
        )  # fmt: skip
    given = TrainConfig(similarity="euclidean", margin=None, batch_size=64)
    assert (given.margin, given.batch_size) == (1.0, 64)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 3}, "training has no setting 'epoch'; it has: network, "),
        ({"epochs": 0}, "'epochs' cannot be 0: .*greater than or equal to 1"),
        ({"lr": float("nan")}, "'lr' cannot be nan"),
        ({"lr": -1}, "'lr' cannot be -1"),
        ({"margin": 0}, "'margin' cannot be 0"),
        ({"batch_size": 1}, "'batch_size' cannot be 1"),
        ({"seed": -1}, "'seed' cannot be -1"),
        ({"threads": 0}, "'threads' cannot be 0"),
        ({"weight_decay": "much"}, "'weight_decay' cannot be 'much'"),
        ({"similarity": "dot"}, "similarity 'dot' is not known"),
        ({"network": "c2f3"}, "no network is called 'c2f3'; did you mean c2f"),
        ({"loss": "tripplet"}, "did you mean triplet"),
    ],
)
def test_bad_settings_are_sentences(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig.parse(settings)


def test_two_mistakes_are_both_named():
    with pytest.raises(ConfigError, match=r"'lr' cannot be 0.*; training has no setting 'epoch'"):
        TrainConfig.parse({"epoch": 3, "lr": 0})


def test_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().epochs = 5


def test_the_digest_changes_with_every_setting_and_with_the_data():
    base = TrainConfig()
    changed = {
        "network": "lenet", "network_args": {"dimension": 9}, "loss": "contrastive", "similarity": "euclidean",
        "margin": 0.3, "epochs": 31, "batch_size": 99, "lr": 2e-3, "weight_decay": 0.0, "seed": 1, "threads": 1,
        "device": "cuda:0",
    }  # fmt: skip
    assert set(changed) == set(TrainConfig.model_fields)
    digests = {TrainConfig(**{name: value}).digest("data") for name, value in changed.items()}
    assert len({*digests, base.digest("data"), base.digest("other")}) == len(changed) + 2
    assert base.digest("data") == TrainConfig(margin=0.2).digest("data")
