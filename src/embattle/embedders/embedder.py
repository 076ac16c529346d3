"""The one contract everything else builds on: pictures in [0, 1] in, embeddings out, and the model left as it was found.

The Embedder owns resizing and normalisation, so ε is always in pixel units and preprocessing cannot happen twice. Around
every use the module is put into eval mode with frozen parameters and put back exactly, also when an exception passes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embattle import similarity as similarities
from embattle.embedders import fingerprint as fingerprints
from embattle.embedders.taps import captured
from embattle.errors import ConfigError, ModelError, PixelError
from embattle.rng import Rows
from embattle.similarity import Similarity

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RANGE_TOLERANCE = 1e-6
_MOST = 10.0
EMBEDDING = "embedding"


class Embedder:
    """An image-embedding model with its preprocessing and its similarity.

    Args:
        module: maps normalised pictures (n, C, H, W) to embeddings (n, D).
        similarity: "cosine", "euclidean", or an object with `pair`, `cross` and `distance`; higher = closer.
        channels: 1 or 3, what the module expects.
        size: the module's input size in pixels, int or (height, width); pictures of another size are resized
            (bilinear, antialiased, differentiable). None: pictures go in as they are.
        mean, std: per-channel normalisation in units of [0, 1]; None: none.
        name: what reports call the model; the module's class name otherwise.

    Raises:
        ConfigError: a mean or std of another length than `channels` or above 1, an unknown similarity.

    >>> embedder = Embedder(nn.Flatten(), channels=1)
    >>> tuple(embedder(torch.zeros(2, 1, 4, 4)).shape)
    (2, 16)
    """

    access: Literal["gradient", "embedding"] = "gradient"
    weights: tuple[float, ...] = (1.0,)
    stochastic: bool = False

    def __init__(
        self,
        module: nn.Module,
        *,
        similarity: str | Similarity = "cosine",
        channels: int = 3,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "",
    ) -> None:
        if channels not in (1, 3):
            raise ConfigError(f"channels must be 1 or 3, not {channels!r}")
        self.module = module
        self.similarity = similarities.by_name(similarity)
        self.channels = channels
        self.size = (size, size) if isinstance(size, int) else size
        self.mean = _per_channel(mean, channels, "mean")
        self.std = _per_channel(std, channels, "std")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"std must be positive, not {self.std}")
        self.name = name or type(module).__name__
        self.dimension: int | None = None
        self._lock = threading.RLock()
        self._depth = 0
        self._known: tuple[bytes, str] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def members(self) -> tuple[Embedder, ...]:
        """An Embedder is a surrogate with one member."""
        return (self,)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters (or buffers) live."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def parameter_count(self) -> int:
        """How many numbers the module has learnt."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, buffers, structure, forward code, preprocessing and similarity."""
        described, tensors = self._described()
        seen = fingerprints.sign(described, tensors)
        if self._known is None or self._known[0] != seen:
            self._known = (seen, fingerprints.fingerprint(described, tensors))
        return self._known[1]

    def _described(self) -> tuple[str, list[tuple[str, Tensor]]]:
        """All that is hashed: structure and settings as text, and the weights."""
        settings = (self.similarity.name, self.channels, self.size, self.mean, self.std)
        return repr((fingerprints.structure(self.module), settings)), fingerprints.tensors_of(self.module)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeds pictures (n, C, H, W), float in [0, 1] -> (n, D); gradients with respect to `x` flow.

        Raises:
            PixelError: pixels outside [0, 1], NaN, wrong shape.
            ModelError: the module's output is not (n, D).
        """
        with self.frozen():
            return self.outputs(check_pixels(x, self.channels))[EMBEDDING]

    def outputs(self, x: Tensor, taps: Sequence[str] = (EMBEDDING,)) -> Mapping[str, Tensor]:
        """The embedding and any hidden layers asked for by module name. Pixels are not checked again: the loop calls this.

        Raises:
            ConfigError: a tap that names no layer.
            ModelError: the module's output is not (n, D), or D changed between two calls.
        """
        layers = [tap for tap in taps if tap != EMBEDDING]
        if not layers:
            return {EMBEDDING: self._checked(self.module(self._prepared(x)), len(x))}
        with captured(self.module, layers) as hidden:
            embedding = self._checked(self.module(self._prepared(x)), len(x))
        return {EMBEDDING: embedding, **hidden}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Eval mode and frozen parameters inside; every module's mode and every `requires_grad` as before outside."""
        with self._lock:
            if self._depth == 0:
                self._before = (
                    [(m, m.training) for m in self.module.modules()],
                    [(p, p.requires_grad) for p in self.module.parameters()],
                )
                self.module.eval()
                self.module.requires_grad_(False)
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    modes, grads = self._before
                    for module, training in modes:
                        module.training = training
                    for parameter, wanted in grads:
                        parameter.requires_grad_(wanted)

    def opened(self, rows: Rows) -> AbstractContextManager[None]:
        """What an attack step runs in. A plain embedder has nothing random to key by the rows."""
        return self.frozen()

    def embed(self, images: Tensor, *, tile: int = 256) -> Tensor:
        """Embeds many pictures without gradients, in a fixed physical batch so that no row depends on its company.

        Args:
            images: (N, C, H, W), uint8 in 0..255 or float in [0, 1].
            tile: pictures per forward pass; the last batch is padded to it.

        Returns:
            (N, D) float32 on the CPU.

        Raises:
            PixelError: no picture, pixels outside [0, 1], NaN, wrong shape or number of channels.
        """
        parts = []
        with self.frozen(), torch.no_grad():
            for part in images.split(tile):
                part = check_pixels(part.float() / 255 if part.dtype == torch.uint8 else part)
                self._check_shape(part)
                padded = torch.cat([part, part[-1:].expand(tile - len(part), *part.shape[1:])])
                parts.append(self.outputs(padded.to(self.device))[EMBEDDING][: len(part)].float().cpu())
        return torch.cat(parts)

    def sharing_preprocessing(self, module: nn.Module) -> Embedder:
        """Another module behind the same preprocessing, similarity and name."""
        return Embedder(
            module, similarity=self.similarity, channels=self.channels, size=self.size, mean=self.mean, std=self.std,
            name=self.name,
        )  # fmt: skip

    def _check_shape(self, x: Tensor) -> None:
        if x.shape[1] != self.channels:
            raise PixelError(
                f"{self.name} expects {self.channels} channel(s), the pictures have {x.shape[1]}; "
                f"load them with channels={self.channels} or build the Embedder with channels={x.shape[1]}"
            )

    def _prepared(self, x: Tensor) -> Tensor:
        wanted = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), x.dtype)
        # A module of lower precision gets pictures rounded to it once, not at every step of their preparation.
        x = x.to(torch.promote_types(wanted, torch.float32))
        if self.size is not None and tuple(x.shape[-2:]) != tuple(self.size):
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        if self.mean is not None:
            x = x - torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        if self.std is not None:
            x = x / torch.tensor(self.std, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return x.to(wanted)

    def _checked(self, z: object, n: int) -> Tensor:
        if not isinstance(z, Tensor):
            raise ModelError(
                f"{self.name} returned a {type(z).__name__}; wrap it in a module that returns one tensor of "
                f"embeddings (n, D)"
            )
        if z.ndim != 2 or z.shape[0] != n or z.shape[1] == 0 or not z.is_floating_point():
            raise ModelError(
                f"{self.name} returned {z.dtype} of shape {tuple(z.shape)} for {n} picture(s); an embedder returns "
                f"floats of shape (n, D) — flatten or pool the output in a wrapping module"
            )
        if self.dimension is None:
            self.dimension = z.shape[1]
        elif self.dimension != z.shape[1]:
            raise ModelError(
                f"{self.name} returned embeddings of {self.dimension} and then of {z.shape[1]} numbers; every picture "
                f"must get an embedding of the same size — set size= so that all pictures enter with one shape"
            )
        return z


def check_pixels(x: Tensor, channels: int | None = None) -> Tensor:
    """Returns `x` as float pictures in [0, 1]; differences of up to 1e-6 are rounded off, more is an error.

    Raises:
        PixelError: not a float tensor (N, C, H, W), not finite, or outside [0, 1]; the message gives the measured range.
    """
    if not isinstance(x, Tensor) or x.ndim != 4:
        given = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise PixelError(f"pictures must be a tensor of shape (N, C, H, W), not {given}; add the missing axes")
    if not x.is_floating_point():
        raise PixelError(f"pictures must be floats in [0, 1], not {x.dtype}; write x.float() / 255 for 8-bit pixels")
    if x.numel() == 0:
        raise PixelError(f"there is no picture in a tensor of shape {tuple(x.shape)}; give at least one")
    if channels is not None and x.shape[1] != channels:
        raise PixelError(f"the model expects {channels} channel(s), the pictures have {x.shape[1]}")
    low, high = (value.item() for value in torch.aminmax(x.detach()))
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise PixelError(f"pixels must lie in [0, 1]; these lie in [{low:.4g}, {high:.4g}]. {_likely_cause(low, high)}")
    return x.clamp(0, 1) if low < 0 or high > 1 else x


def _likely_cause(low: float, high: float) -> str:
    if low != low or high != high or abs(low) == float("inf") or abs(high) == float("inf"):
        return "There are NaN or infinite pixels: look at how the pictures are loaded."
    if low >= 0 and high <= 255:
        return "They look like 8-bit grey levels: divide by 255."
    return "They look normalised already: pass raw pictures and give mean= and std= to the Embedder instead."


def _per_channel(values: Sequence[float] | None, channels: int, what: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    numbers = tuple(float(v) for v in values)
    if len(numbers) != channels:
        raise ConfigError(f"{what} has {len(numbers)} number(s), one for each of the {channels} channel(s) is needed")
    # Pixels in 0..255 have means and deviations of tens; a deviation of 2 is merely unusual.
    if max(numbers) > _MOST:
        raise ConfigError(
            f"{what} is in units of [0, 1], and {', '.join(f'{v:g}' for v in numbers)} look like 0..255; divide by 255"
        )
    return numbers
