"""In-batch triplets: counts, classes, uniformity, and draws that touch no global state."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import DataError
from embattle.training import in_batch_triplets
from embattle.training.sampling import epoch_order


def test_a_batch_of_the_paper_gives_a_hundred_triplets_a_class():
    labels = torch.randint(0, 10, (1000,), generator=torch.Generator().manual_seed(0))
    drawn = in_batch_triplets(labels, np.random.default_rng(0))
    assert len(drawn) == 1000
    assert labels[drawn.anchors].bincount().tolist() == [100] * 10


@given(
    labels=st.lists(st.integers(-3, 5), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1),
    seed=st.integers(0, 99),
)
def test_anchor_and_positive_agree_and_the_negative_does_not(labels, seed):
    labels = torch.tensor(labels)
    drawn = in_batch_triplets(labels, np.random.default_rng(seed))
    classes = labels.unique()
    assert len(drawn) == len(classes) * max(1, len(labels) // len(classes))
    assert torch.equal(labels[drawn.anchors], labels[drawn.positives])
    assert bool((labels[drawn.anchors] != labels[drawn.negatives]).all())
    assert set(labels[drawn.anchors].tolist()) == set(classes.tolist())


def test_draws_are_uniform_with_replacement():
    labels = torch.tensor([0] * 4 + [1] * 6)
    rng = np.random.default_rng(1)
    seen = {"anchors": torch.zeros(10), "positives": torch.zeros(10), "negatives": torch.zeros(10)}
    for _ in range(4000):
        drawn = in_batch_triplets(labels, rng)
        for name, counts in seen.items():
            counts += getattr(drawn, name).bincount(minlength=10)
    # 20,000 draws for each class: 5,000 for each picture of the first, 3,333 of the second; 5 standard deviations.
    for name, (first, second) in {"anchors": (5000, 3333), "positives": (5000, 3333), "negatives": (5000, 3333)}.items():
        assert (seen[name][:4] - first).abs().max() < 5 * 61, name
        assert (seen[name][4:] - second).abs().max() < 5 * 53, name


def test_draws_depend_on_their_generator_alone():
    labels = torch.arange(30) % 3
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = in_batch_triplets(labels, np.random.default_rng(5))
    torch.manual_seed(1)
    np.random.seed(1)
    two = in_batch_triplets(labels, np.random.default_rng(5))
    other = in_batch_triplets(labels, np.random.default_rng(6))
    torch.set_rng_state(before[0])
    assert torch.equal(one.anchors, two.anchors)
    assert torch.equal(one.negatives, two.negatives)
    assert not torch.equal(one.anchors, other.anchors)
    assert random.getstate() == before[2]


def test_a_batch_of_one_class_is_a_sentence():
    with pytest.raises(DataError, match=r"batch of 5 pictures holds 1 class.*needs two"):
        in_batch_triplets(torch.zeros(5, dtype=torch.int64), np.random.default_rng(0))


@pytest.mark.parametrize("labels", [None, torch.arange(400) % 10, torch.arange(400) % 50])
def test_an_epoch_is_a_plain_shuffle_while_batches_hold_pairs(labels):
    order = epoch_order(labels, 400, 100, np.random.default_rng(3))
    assert order.tolist() == np.random.default_rng(3).permutation(400).tolist()


def test_pictures_of_many_classes_stay_together_by_four():
    # As in Stanford Online Products: 2 to 12 pictures of a class, hundreds of classes for a batch of 100.
    sizes = np.random.default_rng(0).integers(2, 13, 300)
    labels = torch.from_numpy(np.random.default_rng(1).permutation(np.repeat(np.arange(300), sizes)))
    order = epoch_order(labels, len(labels), 100, np.random.default_rng(2))
    assert sorted(order.tolist()) == list(range(len(labels)))
    runs = [len(list(run)) for _, run in itertools.groupby(labels[order].tolist())]
    # Two groups of one class may come to lie side by side by chance.
    assert sum(length <= 4 for length in runs) > 0.98 * len(runs)
    assert sum(runs) / len(runs) > 2.5
    alone = {"kept together": order, "shuffled": torch.from_numpy(np.random.default_rng(2).permutation(len(labels)))}
    for name, each in alone.items():
        batches = [labels[part].bincount(minlength=300) for part in each.tensor_split(len(labels) // 100)]
        pairs = sum(int((counts >= 2).sum()) for counts in batches) / sum(int((counts >= 1).sum()) for counts in batches)
        assert (pairs > 0.75) == (name == "kept together")
    # Which pictures come first, and which of a class stay together, is drawn anew.
    other = epoch_order(labels, len(labels), 100, np.random.default_rng(4))
    assert (order != other).float().mean() > 0.95
    members = [{frozenset(part.tolist()) for part in each.split(4)} for each in (order, other)]
    assert len(members[0] & members[1]) < 0.2 * len(members[0])
