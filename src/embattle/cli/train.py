"""`embattle train`: trains an embedding network on a named data set or a folder and writes its checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embattle.cli import flags
from embattle.cli.progress import PlainLines
from embattle.errors import ConfigError

if TYPE_CHECKING:  # torch is imported when the command runs, not for its help
    from embattle.training import Progress, TrainResult

Data = Annotated[str, typer.Option(help="A folder with one sub-folder per class, or a name from: embattle list datasets.")]
Out = Annotated[Path, typer.Option(help="Checkpoint to write, ending in .safetensors.")]
Network = Annotated[str, typer.Option(help="Network to train; see: embattle list networks.")]
NetworkArg = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Argument of the network, for example dimension=512.")
]
Loss = Annotated[str, typer.Option(help="Loss; see: embattle list losses.")]
SimilarityName = Annotated[str, typer.Option(help="What the embedding will be searched with: cosine or euclidean.")]
Margin = Annotated[float | None, typer.Option(help="Margin of the loss (0.2 cosine, 1.0 euclidean if not given).")]
Epochs = Annotated[int, typer.Option(help="Passes over the training pictures.")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures a step (1000 cosine, 500 euclidean if not given).")]
LearningRate = Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")]
WeightDecay = Annotated[float, typer.Option(help="Weight decay of Adam.")]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the order and the draws.")]
Threads = Annotated[int, typer.Option(help="Processor threads; another number gives slightly other weights.")]
Resume = Annotated[bool, typer.Option(help="Go on where an interrupted run stopped, or begin again and overwrite.")]
TensorBoard = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard scalars.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the named data sets; $EMBATTLE_DATA if not given.")]
Channels = Annotated[int | None, typer.Option(help="Load the pictures as 1 (grey) or 3 (RGB) planes.")]
Size = Annotated[int | None, typer.Option(help="Resize the pictures once to this side, in pixels.")]


def train(
    out: Out,
    data: Data = "digits",
    network: Network = "c2f1",
    network_arg: NetworkArg = None,
    loss: Loss = "triplet",
    similarity: SimilarityName = "cosine",
    margin: Margin = None,
    epochs: Epochs = 30,
    batch_size: BatchSize = None,
    lr: LearningRate = 1e-3,
    weight_decay: WeightDecay = 1e-7,
    seed: Seed = 0,
    threads: Threads = 2,
    device: flags.Device = None,
    resume: Resume = True,
    tensorboard: TensorBoard = None,
    data_root: DataRoot = None,
    channels: Channels = None,
    size: Size = None,
) -> None:
    """Train an embedding network.

    A killed run goes on with the same command.
    """
    given = _network_arguments(network_arg or [])
    from embattle import data as datasets
    from embattle import networks, training

    pictures, test = (
        datasets.load(data, split=split, root=data_root, channels=channels, size=size) for split in ("train", "test")
    )
    fitting = networks.arguments_for(network, pictures.images.shape[1], pictures.images.shape[2])
    config = training.TrainConfig.parse(
        {
            "network": network, "network_args": fitting | given, "loss": loss, "similarity": similarity,
            "margin": margin, "epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
            "seed": seed, "threads": threads, "device": device or "cpu",
        }
    )  # fmt: skip
    with _bar() as show:
        result = training.train(config, pictures, out, progress=show, resume=resume, evaluate=test, tensorboard=tensorboard)
    _report(result, test.name)


def _network_arguments(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as constructor arguments; whole numbers become ints."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"--network-arg {pair!r} is not understood; write NAME=VALUE, for example dimension=512")
        arguments[name] = int(value) if value.lstrip("-").isdigit() else value
    return arguments


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from embattle.training import going_on

    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = PlainLines(sys.stderr)

        def tell(progress: Progress) -> None:
            if progress.resumed:
                print(going_on(progress.epoch, progress.epochs), file=sys.stderr, flush=True)
            done = (progress.epoch - 1) * progress.batches + progress.batch
            title = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.4f}"
            lines(title, done, progress.epochs * progress.batches)

        yield tell
        return
    with Bar(*columns, console=console) as bar:

        def show(progress: Progress) -> None:
            done = (progress.epoch - 1) * progress.batches + progress.batch
            fields: dict[str, Any] = {"epoch": progress.epoch, "epochs": progress.epochs, "loss": progress.loss}
            if progress.resumed:
                bar.console.print(going_on(progress.epoch, progress.epochs), highlight=False)
            if not bar.task_ids:
                # Made at the first batch: what an earlier start did must not enter the estimate of the speed.
                before = done if progress.resumed else done - 1
                bar.add_task("train", total=progress.epochs * progress.batches, completed=before, **fields)
            bar.update(bar.task_ids[0], completed=done, **fields)

        yield show


def _report(result: TrainResult, test: str) -> None:
    if result.resumed_after == len(result.history):
        typer.echo("already trained; add --no-resume to train again")
    elif result.resumed_after:
        typer.echo(f"went on after epoch {result.resumed_after}")
    typer.echo(f"checkpoint  {result.path}")
    typer.echo(f"last loss   {result.history[-1]['loss']:.4f} (epoch {len(result.history)})")
    for warning in result.warnings:
        typer.echo(f"warning     {warning}")
    if result.recall is not None:
        typer.echo(f"recall@1    {result.recall} on {test}, leave-one-out")
