"""Is this model fit for an audit? One check per thing that has made other people's results wrong."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embattle.audit.config import DEFAULT_EPS, DEFAULT_SCENARIOS
from embattle.audit.first_layer import Sight, first_sight
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import DataError, EmbattleError, ModelError
from embattle.rng import generator
from embattle.vectors import check_embeddings, spread

Status = Literal["ok", "warn", "FAIL"]

TILE = 16
# Twice-normalised pictures reach ±11 with ImageNet's numbers; once normalised they stay within ±2.7.
_NORMALISED = 6.0
# Kernels for another batch size round differently, by about 1e-6; a batch statistic moves an embedding by percents.
_ROUNDING = 1e-3
_LIVE_SHARE, _SPREAD = 0.1, 0.01
_TIMED_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a check-up: what was looked at, what was found, and what to do about it."""

    name: str
    status: Status
    finding: str
    advice: str = ""


def examine(embedder: Embedder, pictures: Tensor) -> Iterator[Check]:
    """Looks at a model with some pictures; a check that cannot run fails, and the others go on.

    Args:
        embedder: the model with its preprocessing.
        pictures: (N, C, H, W) uint8, at least 2 of them; the first 16 are used.

    Raises:
        DataError: fewer than 2 pictures.
    """
    if len(pictures) < 2:
        raise DataError(f"{len(pictures)} picture(s) were given; a check-up needs at least 2")
    x = pictures[:TILE].float().to(embedder.device) / 255
    yield _description(embedder)
    before = _condition(embedder.module)
    try:
        z, seen = _looked(embedder, x)
    except Exception as error:  # whatever a stranger's model raises is a finding here
        yield Check(name="forward pass", status="FAIL", finding=_told(error), advice=_advice(embedder, x))
        return
    yield from _on_first_pass(embedder, x, z, seen)
    if torch.isfinite(z).all():
        for name, look in _LOOKS.items():
            try:
                yield look(embedder, x, z)
            except Exception as error:  # as above
                yield Check(name=name, status="FAIL", finding=_told(error), advice=_advice(embedder, x))
    yield _restored(embedder, before)


def warnings(embedder: Embedder, x: Tensor) -> list[str]:
    """What would make an audit's figures meaningless, in sentences: no gradient, random or batch-dependent embeddings.

    Args:
        embedder: the model.
        x: (n, C, H, W) pictures in [0, 1], two or more.
    """
    z = _embedded(embedder, x)
    looks = (look(embedder, x, z) for look in (_gradient, _determinism, _company))
    return [
        f"The model fails the check {check.name!r}: {check.finding}. Its figures say little about its robustness; "
        f"{check.advice}."
        for check in looks
        if check.status == "FAIL"
    ]


def _looked(embedder: Embedder, x: Tensor) -> tuple[Tensor, Sight | None]:
    with first_sight(embedder.module) as sights:
        z = _embedded(embedder, x)
    return z, sights[0] if sights else None


def _embedded(embedder: Embedder, x: Tensor) -> Tensor:
    with embedder.frozen(), torch.no_grad():
        return embedder.outputs(x)[EMBEDDING].float()


def _description(embedder: Embedder) -> Check:
    size = "pictures of any size" if embedder.size is None else f"{embedder.size[0]}x{embedder.size[1]} pixels"
    finding = (
        f"{embedder.name}: {embedder.parameter_count:,} parameters on {embedder.device}, {embedder.channels} channel(s), "
        f"{size}, {embedder.similarity.name}"
    )
    return Check(name="model", status="ok", finding=finding)


def _on_first_pass(embedder: Embedder, x: Tensor, z: Tensor, seen: Sight | None) -> Iterator[Check]:
    yield _input(embedder, x, seen)
    yield Check(
        name="output", status="ok", finding=f"{z.shape[1]} numbers for each picture, {z.dtype}".replace("torch.", "")
    )
    bad = int((~torch.isfinite(z)).any(1).sum())
    if bad:
        advice = "check the weights, and --mean and --std if they were given"
        yield Check(
            name="finite", status="FAIL", finding=f"{bad} of {len(z)} embeddings hold NaN or infinity", advice=advice
        )
        return
    yield Check(name="finite", status="ok", finding="no NaN and no infinity")
    try:
        check_embeddings(z, embedder.similarity, f"embeddings of {embedder.name}")
    except ModelError as error:
        yield Check(name="not collapsed", status="FAIL", finding=str(error))
        return
    differ = spread(z)
    finding = f"embeddings of different pictures differ by {100 * differ:.3g} % of their length"
    if differ < _SPREAD:
        advice = "check that the weights were loaded and that the pictures differ"
        yield Check(name="not collapsed", status="warn", finding=finding, advice=advice)
    else:
        yield Check(name="not collapsed", status="ok", finding=finding)


def _input(embedder: Embedder, x: Tensor, seen: Sight | None) -> Check:
    if seen is None:
        return Check(name="input", status="ok", finding="no layer to look at; pictures enter the module in [0, 1]")
    resized = "" if seen.shape[-2:] == tuple(x.shape[-2:]) else f", pictures of {x.shape[2]}x{x.shape[3]} are resized"
    finding = f"{seen.layer} sees {seen.low:.3g} to {seen.high:.3g} (mean {seen.mean:.3g}) in {seen.size}{resized}"
    if not seen.finite:
        return Check(
            name="input", status="FAIL", finding=finding, advice="the model's own preprocessing makes NaN of pixels"
        )
    if max(-seen.low, seen.high) > _NORMALISED:
        advice = "looks normalised twice, or multiplied by 255: take that out of the model, or leave out --mean and --std"
        return Check(name="input", status="warn", finding=finding, advice=advice)
    plain = embedder.mean is None and embedder.std is None and seen.low >= 0 and seen.high <= 1
    # Models of colour pictures are usually trained on normalised ones; grey ones often are not.
    advice = "if the model was trained on normalised pictures, give --mean and --std" if plain and x.shape[1] == 3 else ""
    told = f"{finding}, not normalised" if plain else finding
    return Check(name="input", status="ok", finding=told, advice=advice)


def _gradient(embedder: Embedder, x: Tensor, z: Tensor) -> Check:
    name = "gradient"
    draw = generator(0, "checkup").standard_normal(z.shape)
    direction = torch.from_numpy(draw).to(z)
    pixels = x.clone().requires_grad_()
    with embedder.frozen(), torch.enable_grad():
        found = embedder.outputs(pixels)[EMBEDDING].float()
        if not found.requires_grad:
            advice = (
                "take no_grad, detach, numpy and rounding out of its forward; without gradients nothing can be measured"
            )
            return Check(
                name=name, status="FAIL", finding="none: the embedding does not depend on the pixels", advice=advice
            )
        (gradient,) = torch.autograd.grad((found * direction).sum(), pixels, allow_unused=True)
    if gradient is None or not gradient.any():
        advice = "look for rounding, thresholds or saturated activations between pixels and embedding"
        return Check(name=name, status="FAIL", finding="zero at every pixel", advice=advice)
    if not torch.isfinite(gradient).all():
        advice = "look for square roots and divisions at 0; add a small constant there"
        return Check(name=name, status="FAIL", finding="NaN or infinite at some pixels", advice=advice)
    share = (gradient != 0).any(1).double().mean().item()
    dead = int((gradient.flatten(1) == 0).all(1).sum())
    finding = f"reaches {100 * share:.0f} % of the pixels"
    if dead or share < _LIVE_SHARE:
        advice = "attacks will look weaker than they are: look for cropping, masks and saturated activations"
        return Check(
            name=name, status="warn", finding=f"{finding}, and {dead} of {len(x)} pictures not at all", advice=advice
        )
    return Check(name=name, status="ok", finding=finding)


def _determinism(embedder: Embedder, x: Tensor, z: Tensor) -> Check:
    difference = float((_embedded(embedder, x) - z).abs().max())
    if difference == 0 and torch.equal(_embedded(embedder, x), z):
        return Check(name="determinism", status="ok", finding="passes over the same pictures agree to the last bit")
    return Check(
        name="determinism", status="FAIL", finding=f"two passes over the same pictures differ by {difference:.2g}",
        advice="take random augmentation and dropout that ignores eval mode out of the model's forward",
    )  # fmt: skip


def _company(embedder: Embedder, x: Tensor, z: Tensor) -> Check:
    others = torch.cat([x[:1], 1 - x[1:]])
    scale = float(z[0].norm().clamp_min(1e-30))
    company = float((_embedded(embedder, others)[0] - z[0]).norm()) / scale
    alone = float((_embedded(embedder, x[:1])[0] - z[0]).norm()) / scale
    if max(company, alone) > _ROUNDING:
        finding = f"an embedding changes by {100 * max(company, alone):.2g} % with the other pictures of its batch"
        advice = "batch statistics are in use although the model is in eval mode: take them out of its forward"
        return Check(name="batch", status="FAIL", finding=finding, advice=advice)
    finding = f"alone and in a batch of {len(x)} an embedding is the same up to rounding ({alone:.0e})"
    return Check(name="batch", status="ok", finding=finding)


def _modes(embedder: Embedder, x: Tensor, z: Tensor) -> Check:
    norms = [m for m in embedder.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    drops = [m for m in embedder.module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    layers = f"{len(norms)} batch-norm and {len(drops)} dropout layers"
    fresh = [m for m in norms if m.running_mean is not None and not m.running_mean.any() and m.num_batches_tracked == 0]
    if fresh:
        advice = "load the weights with their buffers (model.load_state_dict), or train the model"
        return Check(
            name="modes", status="warn", finding=f"{len(fresh)} batch-norm layers never saw a picture", advice=advice
        )
    try:
        twin = copy.deepcopy(embedder.module)
    except Exception as error:  # a stranger's module may hold anything
        return Check(
            name="modes", status="warn", finding=f"{layers}; the model cannot be copied to compare ({_told(error)})"
        )
    trained = Embedder(
        _AlwaysTraining(twin), similarity=embedder.similarity, channels=embedder.channels, size=embedder.size,
        mean=embedder.mean, std=embedder.std,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        difference = float((_embedded(trained, x) - z).norm() / z.norm().clamp_min(1e-30))
    finding = f"{layers}; training mode changes embeddings by {100 * difference:.2g} %, audits run in eval mode"
    if difference > _ROUNDING and embedder.module.training:
        advice = "the model comes in training mode: call .eval() where you serve it, or it is another model than this one"
        return Check(name="modes", status="warn", finding=finding, advice=advice)
    return Check(name="modes", status="ok", finding=finding)


class _AlwaysTraining(nn.Module):
    """A module that stays in training mode whatever mode it is put into."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        self.inner.train()
        return self.inner(x)


def _speed(embedder: Embedder, x: Tensor, z: Tensor) -> Check:
    forward = _rate(lambda: _embedded(embedder, x), x)

    def both() -> None:
        pixels = x.clone().requires_grad_()
        with embedder.frozen(), torch.enable_grad():
            found = embedder.outputs(pixels)[EMBEDDING].float().sum()
            if found.requires_grad:  # if not, the gradient's own check says so
                torch.autograd.grad(found, pixels, allow_unused=True)

    backward = _rate(both, x)
    passes = len(DEFAULT_SCENARIOS) * len(DEFAULT_EPS) * 100 * 30
    finding = (
        f"{forward:,.0f} pictures/s forward, {backward:,.0f} with backward: the attacks of a default audit take about "
        f"{max(passes / backward / 60, 1):,.0f} min"
    )
    advice = "for a first look: --attacked 20 --eps 0.03" if passes / backward > 1800 else ""
    return Check(name="speed", status="ok", finding=finding, advice=advice)


def _rate(work: Callable[[], object], x: Tensor) -> float:
    """Pictures a second."""

    def whole() -> None:
        work()
        if x.is_cuda:  # work is only queued there, and the clock must wait for it
            torch.cuda.synchronize(x.device)

    whole()
    started, rounds = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < _TIMED_SECONDS or not rounds:
        whole()
        rounds += 1
    return rounds * len(x) / max(spent, 1e-9)


_LOOKS: dict[str, Callable[[Embedder, Tensor, Tensor], Check]] = {
    "gradient": _gradient,
    "determinism": _determinism,
    "batch": _company,
    "modes": _modes,
    "speed": _speed,
}


def _condition(module: nn.Module) -> tuple[Any, ...]:
    return (
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
        [buffer.detach().clone() for buffer in module.buffers()],
    )


def _restored(embedder: Embedder, before: tuple[Any, ...]) -> Check:
    after = _condition(embedder.module)
    what = [name for name, a, b in zip(("modes", "requires_grad", "hooks"), before[:3], after[:3], strict=True) if a != b]
    same = len(before[3]) == len(after[3]) and all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
    what += [] if same else ["buffers"]
    if what:
        advice = "its forward writes to the model itself; take that out, or results depend on what was embedded before"
        return Check(name="left as found", status="FAIL", finding=f"changed by use: {', '.join(what)}", advice=advice)
    return Check(name="left as found", status="ok", finding="modes, requires_grad, hooks and buffers are as before")


def _told(error: Exception) -> str:
    first = str(error).strip().split("\n", 1)[0]
    return first if isinstance(error, EmbattleError) else f"{type(error).__name__}: {first}"


def _advice(embedder: Embedder, x: Tensor) -> str:
    shape = "x".join(map(str, x.shape[1:]))
    return f"it got pictures of {shape}; check --size and --channels, and run the model on such a picture yourself"
