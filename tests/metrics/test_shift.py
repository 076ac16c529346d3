"""The shift of an embedding: closed forms and bad input."""

import math

import pytest
import torch

from embattle.errors import InputError, ModelError
from embattle.metrics import max_shift
from embattle.similarity import Cosine, Euclidean


def test_shift_is_the_distance_between_before_and_after():
    clean = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    moved = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]])
    assert max_shift(clean, moved, Cosine()).tolist() == pytest.approx([0, 1, 2, 0], abs=1e-12)
    assert max_shift(clean, moved, Euclidean()).tolist() == pytest.approx([4, math.sqrt(5), 2, 0], abs=1e-5)


def test_bad_input_is_a_sentence():
    with pytest.raises(InputError, match="equal shapes"):
        max_shift(torch.ones(2, 3), torch.ones(3, 3), Cosine())
    with pytest.raises(ModelError, match="attacked embeddings are NaN"):
        max_shift(torch.ones(2, 3), torch.full((2, 3), torch.nan), Cosine())
