"""The trainer: Adam over the losses of batches, and after every epoch a state from which a killed run goes on bit-equal."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embattle import networks
from embattle.data import ImageSet
from embattle.embedders import EMBEDDING, Embedder, Learner
from embattle.errors import ConfigError, DataError, ModelError, RunIncomplete, RunMismatch
from embattle.metrics.recall import recall_at_k
from embattle.records.figure import Figure
from embattle.rng import generator
from embattle.similarity import by_name
from embattle.training.config import TrainConfig
from embattle.training.losses import LOSSES
from embattle.training.model_file import ModelFile, NetworkFile, WeightsFile
from embattle.training.sampling import OneClass, epoch_order
from embattle.training.scalars import Scalars, write_history
from embattle.training.state import State, load_state, save_state, state_digest, state_path
from embattle.training.step import Batch, MetricLearning, TrainStep
from embattle.vectors import check_embeddings, spread

BatchNorm = Literal["train", "frozen"]

# Pictures looked at after every epoch to notice a model that embeds all of them alike, and how little of their length
# their embeddings may differ by: cosine distances are then about 1e-4, and whatever a search shows hangs on rounding.
_PROBES = 256
_COLLAPSED = 0.01


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is: `batch` of `batches` of `epoch` of `epochs` (from 1) is done; `loss` of that batch.

    `resumed`: an earlier start came that far, and this one goes on from there.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    resumed: bool = False

    @property
    def share(self) -> float:
        """How much of the run is done, in [0, 1]."""
        return (self.epoch - 1 + self.batch / self.batches) / self.epochs


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished training run.

    Args:
        path: the checkpoint.
        embedder: the trained model, in eval mode.
        history: one row per epoch, with "epoch", "loss" (mean over the batches), "seconds", "spread" (how much embeddings
            of different training pictures differ, as a share of their length) and, where there were any, "skipped" batches.
        resumed_after: epochs that an earlier, interrupted start had finished; all of them if there was nothing to do.
        recall: Recall@1, leave-one-out, on the evaluation pictures; None where there were none.
    """

    path: Path
    embedder: Embedder
    history: tuple[dict[str, Any], ...]
    resumed_after: int
    recall: Figure | None

    def __str__(self) -> str:
        recall = "" if self.recall is None else f", recall@1 {self.recall}"
        warnings = "".join(f"; {warning}" for warning in self.warnings)
        return f"{self.path}: {len(self.history)} epochs, last loss {self.history[-1]['loss']:.4f}{recall}{warnings}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an owner should know of how the training went, a sentence each."""
        told = []
        if (left := self.history[-1].get("spread")) is not None and left < _COLLAPSED:
            told.append(
                f"the model has nearly collapsed: embeddings of different pictures differ by {100 * left:.2g} % of their "
                "length; take another defense or loss, or a smaller ε"
            )
        if skipped := sum(row.get("skipped", 0) for row in self.history):
            told.append(f"{skipped} batches held pictures of one class and were skipped; a larger batch_size holds more")
        return tuple(told)


def train(
    config: TrainConfig,
    dataset: ImageSet,
    out: Path,
    *,
    start: Embedder | None = None,
    step: TrainStep | None = None,
    model_file: ModelFile | None = None,
    batch_norm: BatchNorm = "train",
    progress: Callable[[Progress], None] | None = None,
    resume: bool = True,
    evaluate: ImageSet | None = None,
    tensorboard: Path | None = None,
) -> TrainResult:
    """Trains an embedding network and writes its checkpoint.

    Beside `out` lie `<stem>.history.jsonl` and, until the end, `<stem>.state.safetensors`. On a cpu the weights depend
    on the configuration and the data alone: interrupted and continued, or in one go, they are bit-equal. The caller's
    global random state and thread count are as before afterwards, also when an exception passes.

    Args:
        config: what to train.
        dataset: training pictures, with labels where the step needs them.
        out: the checkpoint to write, "....safetensors".
        start: the model whose copy is trained further, but for parameters that are frozen (where all are, none counts
            as frozen); None: the configuration's network with fresh weights.
        step: what is minimised; None: the configuration's metric-learning loss of the clean pictures.
        model_file: how the model is written; None: a checkpoint of the configuration's network, or the weights alone of a
            model that training starts from.
        batch_norm: "train": batch-norm layers learn from the step's pictures; "frozen": their statistics stay as they are.
        progress: called after every batch, and first of all with where an earlier start is gone on with.
        resume: go on from an earlier start of the same configuration, and return at once when it had finished; False:
            begin again and overwrite.
        evaluate: pictures whose Recall@1 is measured at the end if they have labels; they never influence the weights.
        tensorboard: folder for TensorBoard's event files.

    Raises:
        ConfigError: a bad `out` or device, a `start` of another similarity than the configuration's.
        DataError: pictures without labels, of fewer than two classes, or of a size that the network cannot take.
        RunMismatch: `out` or its state belongs to another configuration or other data.
        ModelError: the loss became NaN or infinite, or all embeddings became equal; the last good epoch is kept.
        RunIncomplete: interrupted, or the disk is full; the same call goes on.
        MissingDependency: `tensorboard` was given, and the package is missing.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise ConfigError(
            f"a checkpoint is written to a .safetensors file, not {out.name!r}; write --out {out.stem}.safetensors"
        )
    step = step or MetricLearning(
        metric_loss=LOSSES[config.loss].build(similarity=by_name(config.similarity), margin=config.margin)
    )
    model_file = model_file or _model_file(config, start)
    if step.needs_labels:
        check_labels(dataset)
        if evaluate is not None:
            check_labels(evaluate)
    if start is not None and start.similarity.name != config.similarity:
        raise ConfigError(
            f"{start.name} is searched by {start.similarity.name}, the training is set to {config.similarity}; "
            f"write --similarity {start.similarity.name}"
        )
    digest = _digest(config, dataset, start, step, batch_norm)
    if resume and out.exists() and state_digest(state_path(out)) != digest:
        return _finished(out, digest, evaluate, model_file)
    scalars = Scalars(tensorboard)
    try:
        with _surroundings(config):
            run = _Run(config, dataset, out, digest, resume, start=start, step=step, batch_norm=batch_norm)
            # An unwritable folder must be found before hours of training, not after.
            write_history(out, run.history)
            run.tell_where_it_goes_on(progress)
            for epoch in range(len(run.history) + 1, config.epochs + 1):
                run.epoch(epoch, progress)
                scalars.write(epoch, {key: value for key, value in run.history[-1].items() if key != "epoch"})
            return run.finish(evaluate, scalars, model_file)
    except KeyboardInterrupt:
        raise RunIncomplete(
            f"training of {out} was interrupted; the same command goes on after the last whole epoch"
        ) from None
    finally:
        scalars.close()


def _digest(config: TrainConfig, dataset: ImageSet, start: Embedder | None, step: TrainStep, batch_norm: BatchNorm) -> str:
    # What says nothing is left out, so that a plain training keeps the identity it has always had.
    further: dict[str, Any] = {"step": dict(step.settings), "start": start.fingerprint if start else None}
    further |= {"batch_norm": None if batch_norm == "train" else batch_norm}
    return config.digest(dataset.fingerprint, **{key: value for key, value in further.items() if value})


def _model_file(config: TrainConfig, start: Embedder | None) -> ModelFile:
    if start is not None:
        return WeightsFile(base=start)
    if config.network is None:
        raise ConfigError("training has neither a network nor a model to start from; set network, or give start")
    return NetworkFile(network=config.network, network_args=config.network_args)


class _Run:
    """A run in progress: model, optimiser and the history of its finished epochs."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: ImageSet,
        out: Path,
        digest: str,
        resume: bool,
        *,
        start: Embedder | None,
        step: TrainStep,
        batch_norm: BatchNorm,
    ) -> None:
        self.config, self.dataset, self.out, self.digest = config, dataset, out, digest
        self.step, self.batch_norm = step, batch_norm
        torch.manual_seed(config.seed)
        self.embedder = _fresh(config, dataset) if start is None else _copied(start, config.device)
        self.module = self.embedder.module
        self._check_fit()
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        state = load_state(state_path(out), self.module, self.optimiser, digest) if resume else None
        self.history: tuple[dict[str, Any], ...] = state.history if state else ()
        self.resumed_after = len(self.history)
        self.previous_loss: float | None = self.history[-1].get("last_loss") if self.history else None

    def _check_fit(self) -> None:
        shape = tuple(self.dataset.images.shape[1:])
        self.module.eval()
        try:
            with torch.no_grad():
                self._embedded(torch.tensor([0]))
        except RuntimeError as error:
            arguments = f" with {self.config.network_args}" if self.config.network_args else ""
            raise DataError(
                f"network {self.config.network or self.embedder.name!r}{arguments} cannot take pictures of shape {shape} "
                f"(channels, height, width): {error}; change network_args, or the pictures' size"
            ) from error

    def _pixels(self, positions: Tensor) -> Tensor:
        return self.dataset.images[positions].to(self.config.device).float() / 255

    def _embedded(self, positions: Tensor) -> Tensor:
        return self.embedder.outputs(self._pixels(positions))[EMBEDDING]

    def tell_where_it_goes_on(self, progress: Callable[[Progress], None] | None) -> None:
        """Tells of the last batch of an earlier start, so that nobody takes this one for a start from nothing."""
        if progress is None or not self.history:
            return
        epoch, last = self.resumed_after, self.history[-1]
        whole = len(self._batches(epoch))
        loss = last.get("last_loss", last["loss"])
        progress(Progress(epoch=epoch, epochs=self.config.epochs, batch=whole, batches=whole, loss=loss, resumed=True))

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Positions of the pictures of every batch."""
        drawn, count = generator(self.config.seed, "order", epoch), len(self.dataset.images)
        order = epoch_order(self.dataset.labels, count, self.config.batch_size, drawn)
        return order.tensor_split(math.ceil(len(order) / self.config.batch_size))

    def epoch(self, epoch: int, progress: Callable[[Progress], None] | None) -> None:
        """Trains one epoch, checks the model, and makes the epoch durable."""
        started = time.monotonic()
        # Keyed by the epoch, so that a network which draws (dropout) does the same after a restart.
        torch.manual_seed(int(generator(self.config.seed, "network", epoch).integers(2**62)))
        batches = self._batches(epoch)
        losses: list[float] = []
        self._train_mode()
        for number, positions in enumerate(batches):
            try:
                self.previous_loss = self._step(epoch, number, positions)
            except OneClass:
                # In a set of few pictures of most classes shuffling makes such batches; a whole epoch of them is an error.
                if number + 1 == len(batches) and not losses:
                    raise
                continue
            losses.append(self.previous_loss)
            if progress is not None:
                progress(
                    Progress(
                        epoch=epoch, epochs=self.config.epochs, batch=number + 1, batches=len(batches), loss=losses[-1]
                    )
                )
        row = {"epoch": epoch, "loss": math.fsum(losses) / len(losses), "last_loss": losses[-1]}
        row["spread"] = self._spread(epoch)
        if len(losses) < len(batches):
            row["skipped"] = len(batches) - len(losses)
        self.history += (row | {"seconds": round(time.monotonic() - started, 3)},)
        state = State(digest=self.digest, history=self.history)
        save_state(state_path(self.out), self.module, self.optimiser, state)
        write_history(self.out, self.history)

    def _train_mode(self) -> None:
        self.module.train()
        if self.batch_norm == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def _step(self, epoch: int, number: int, positions: Tensor) -> float:
        labels = self.dataset.labels
        batch = Batch(
            x=self._pixels(positions), labels=None if labels is None else labels[positions].to(self.config.device),
            ids=tuple(str(position) for position in positions.tolist()), seed=self.config.seed, epoch=epoch, number=number,
            previous_loss=self.previous_loss,
        )  # fmt: skip
        loss = self.step.loss(self.embedder, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(f"the loss became {value} in batch {number + 1} of epoch {epoch}; {self._advice(epoch)}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return value

    def _spread(self, epoch: int) -> float:
        """How much embeddings of some training pictures differ.

        Raises:
            ModelError: not at all.
        """
        self.module.eval()
        with torch.no_grad():
            count = len(self.dataset.images)
            # From all over: folders are read class by class.
            embeddings = self._embedded(torch.arange(0, count, max(count // _PROBES, 1))[:_PROBES])
        try:
            return spread(check_embeddings(embeddings.detach().float(), by_name(self.config.similarity)))
        except ModelError as error:
            raise ModelError(f"after epoch {epoch} of training, {error}; {self._advice(epoch)}") from error

    def _advice(self, epoch: int) -> str:
        kept = f"the state after epoch {epoch - 1} is kept in {state_path(self.out)}" if epoch > 1 else "nothing was kept"
        return (
            f"lower the learning rate (it is {self.config.lr:g}), or raise the margin (it is {self.config.margin:g}), "
            f"and train to another --out; {kept}"
        )

    def finish(self, evaluate: ImageSet | None, scalars: Scalars, model_file: ModelFile) -> TrainResult:
        """Writes the checkpoint, then drops the state: at no moment is there neither."""
        self.module.eval()
        training = {
            "digest": self.digest, "config": self.config.model_dump(mode="json"), "data": self.dataset.name,
            "images": len(self.dataset.images), "data_fingerprint": self.dataset.fingerprint,
            "history": [
                {key: row[key] for key in ("epoch", "loss", "spread", "skipped") if key in row} for row in self.history
            ],
        }  # fmt: skip
        model_file.save(self.out, self.embedder, training)
        state_path(self.out).unlink(missing_ok=True)
        embedder = model_file.load(self.out)
        recall = _recall(embedder, evaluate)
        if recall is not None and recall.value is not None:
            scalars.write(self.config.epochs, {"recall_at_1": recall.value})
        return TrainResult(
            path=self.out, embedder=embedder, history=self.history, resumed_after=self.resumed_after, recall=recall
        )


def _fresh(config: TrainConfig, dataset: ImageSet) -> Learner:
    images = dataset.images
    assert config.network is not None, "the model file has been chosen before: there is a network"
    module = networks.build(config.network, **config.network_args).to(config.device)
    size = (images.shape[2], images.shape[3])
    return Learner(module, similarity=config.similarity, channels=images.shape[1], size=size, name=config.network)


def _copied(start: Embedder, device: str) -> Learner:
    # The caller's model stays as it is, and what its owner froze stays frozen. All of it frozen is a model made ready for
    # use, which has to learn again.
    module = copy.deepcopy(start.module).to(device)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        module.requires_grad_(True)
    return Learner.of(start, module)


@contextmanager
def _surroundings(config: TrainConfig) -> Iterator[None]:
    """The configured thread count and a random state of our own inside; the caller's outside."""
    try:
        device = torch.device(config.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {config.device!r} cannot be used ({error}); write device='cpu'") from error
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.set_num_threads(config.threads)
            yield
        finally:
            torch.set_num_threads(threads)


def check_labels(pictures: ImageSet) -> None:
    """Checks that pictures have the classes that metric learning needs.

    Raises:
        DataError: no labels, or fewer than two classes.
    """
    if pictures.labels is None:
        raise DataError(
            f"{pictures.name} has no labels, and training needs them; put the pictures into one folder per class"
        )
    classes = len(torch.unique(pictures.labels))
    if classes < 2:
        raise DataError(f"{pictures.name} has {classes} class(es), and training needs at least two")


def _recall(embedder: Embedder, pictures: ImageSet | None) -> Figure | None:
    if pictures is None or pictures.labels is None:
        return None
    return recall_at_k(embedder.embed(pictures.images), pictures.labels, embedder.similarity, 1).figure


def _finished(out: Path, digest: str, evaluate: ImageSet | None, model_file: ModelFile) -> TrainResult:
    training = model_file.training(out)
    if training.get("digest") != digest:
        raise RunMismatch(
            f"{out} exists and was trained with other settings or other data; write to another --out, or add "
            "--no-resume to overwrite it"
        )
    embedder = model_file.load(out)
    history = tuple(training["history"])
    recall = _recall(embedder, evaluate)
    return TrainResult(path=out, embedder=embedder, history=history, resumed_after=len(history), recall=recall)
