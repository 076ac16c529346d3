"""Models whose figures would look like robustness: the audit says so, and does not grade what it could not attack."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import embattle as eb
from embattle.audit import AuditConfig, audit
from embattle.errors import ModelError


class Model(nn.Module):
    """A linear model whose output goes through a function."""

    def __init__(self, after):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.linear = nn.Linear(25, 6)
        self.after = after

    def forward(self, x):
        return self.after(self.linear(x.flatten(1)))


def audited(after, make_gallery, tmp_path):
    config = AuditConfig.parse(
        {"scenarios": ("ca+.w1",), "eps": (0.1,), "steps": 3, "attacked": 8, "shard": 8, "tile": 4, "k": 4}
    )
    model = eb.Embedder(Model(after), channels=1)
    return audit(config, make_gallery(), model, out=tmp_path / "run")[1]


def test_no_gradient_no_grade(make_gallery, tmp_path):
    summary = audited(lambda z: torch.round(5 * z), make_gallery, tmp_path)
    (threat,) = summary["threats"]
    assert threat["grade"] is None
    assert threat["grade_range"] is None
    assert any("'gradient'" in warning for warning in summary["warnings"])
    assert any("zero gradient on 8 of 8 pictures" in warning for warning in summary["warnings"])
    assert set(summary["warnings"]) <= set(summary["notes"])
    assert "see the warnings" in eb.report.render_markdown(summary)


def test_a_detached_forward_is_refused_with_a_sentence(make_gallery, tmp_path):
    with pytest.raises(ModelError, match=r"gives no gradient.*no_grad"):
        audited(lambda z: z.detach(), make_gallery, tmp_path)


def test_random_and_batch_dependent_embeddings_are_told(make_gallery, tmp_path):
    random = audited(lambda z: z + 0.01 * torch.randn_like(z), make_gallery, tmp_path / "random")
    assert any("'determinism'" in warning for warning in random["warnings"])
    together = audited(lambda z: z - z.mean(0) / 2, make_gallery, tmp_path / "together")
    assert any("'batch'" in warning for warning in together["warnings"])


def test_an_ordinary_model_gets_no_warning(make_gallery, tmp_path):
    summary = audited(torch.tanh, make_gallery, tmp_path)
    assert summary["warnings"] == []
    assert summary["threats"][0]["grade"] is not None


def test_a_model_that_breaks_under_attack_has_failed(make_gallery, tmp_path):
    images = make_gallery()
    clean = {tuple(row.tolist()) for row in (images.images.float() / 255).flatten(1)}

    class Breaking(Model):
        def forward(self, x):
            z = super().forward(x)
            known = torch.tensor([tuple(row.tolist()) in clean for row in x.detach().flatten(1)])
            return torch.where(known.unsqueeze(1), z, torch.full_like(z, float("nan")))

    config = AuditConfig.parse(
        {"scenarios": ("ca+.w1",), "eps": (0.1,), "steps": 3, "attacked": 8, "shard": 8, "tile": 4, "k": 4}
    )
    model = eb.Embedder(Breaking(lambda z: z), channels=1)
    _, summary = audit(config, images, model, out=tmp_path / "run")
    point = summary["threats"][0]["curve"][-1]
    assert point["figures"]["success"]["failed"] == 8
