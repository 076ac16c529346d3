"""Whatever a user gets wrong ends in a sentence and exit code 2, and leaves nothing that looks like a result."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import embattle as eb
from embattle.audit import AuditConfig
from embattle.audit import audit as audit_in_python
from embattle.errors import InputError, PixelError


def test_the_audit_that_the_others_spoil_works(audit) -> None:
    said = audit("--out", "run")
    assert said.code == 0, said.words
    assert Path("run/report.html").is_file()
    assert "Push an item up" in said.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--nope"], ["--nope"]),
        (["--steps", "many"], ["--steps"]),
        (["--on-error", "ignore"], ["--on-error"]),
        (["--eps", "-0.1"], ["-0.1", "(0, 1]", "n/255"]),
        (["--eps", "1.5"], ["1.5", "(0, 1]"]),
        (["--eps", "0"], ["(0, 1]"]),
        (["--eps", "nan"], ["nan", "(0, 1]"]),
        (["--eps", "8/0"], ["8/0", "fraction"]),
        (["--eps", "small"], ["'small'", "decimal"]),
        (["--k", "24"], ["k = 24", "24 pictures"]),
        (["--k", "0"], ["k:", "0"]),
        (["--attacked", "0"], ["attacked", "0"]),
        (["--own", "lost"], ["own", "'kept'", "'lost'"]),
        (["--attack", "pdg"], ["'pdg'", "did you mean pgd"]),
        (["--rule", "ranking"], ["apgd", "rule"]),
        (["--attack", "pgd", "--rule", "ranking"], ["rule='ranking'", "steps"]),
        (["--attack", "fgsm"], ["fgsm", "steps"]),
        (["--threads", "0"], ["--threads", "at least 1"]),
        (["--mean", "a,b"], ["--mean", "numbers"]),
        (["--mean", "0.5", "--std", "0.5"], ["mean", "3 channel"]),
        (["--mean", "0,0,0", "--std", "0,1,1"], ["std", "positive"]),
        (["--mean", "0.5,0.5,0.5"], ["--mean", "without --std", "--std 1,1,1"]),
        (["--mean", "0.5"], ["without --std", "write --std 1 "]),
        (["--std", "0.5,0.5,0.5"], ["--std", "without --mean", "--mean 0,0,0"]),
        (["--mean", "123.7,116.3,103.5", "--std", "58.4,57.1,57.4"], ["mean", "123.7", "divide by 255"]),
        (["--mean", "0.5,0.5,0.5", "--std", "0.2,58,0.2"], ["std", "58", "divide by 255"]),
        (["--device", "cuda:77"], ["--device 'cuda:77'", "this machine has: cpu"]),
        (["--device", "meta"], ["--device 'meta'", "cannot be used"]),
        (["--device", "gpu"], ["--device 'gpu'", "this machine has: cpu"]),
        (["--channels", "2"], ["channels", "1 or 3"]),
        (["--similarity", "cosin"], ["cosin", "cosine"]),
        (["--gate", "ca+.w1 maybe 3"], ["operator", "NAME[@EPS] OP NUMBER"]),
        (["--gate", "ca-.w1 > 3"], ["ca-.w1", "ca+.w1"]),
        (["--gate", "recall@5 > 0.5"], ["recall@5", "recall@3"]),
        (["--gate", "ca+.w1@0.05.rank <= 10"], ["ca+.w1@0.05.rank", "ca+.w1.rank"]),
        (["--gate", "ca+.w1.rank@0.05 <= 10"], ["0.05 is not tested for ca+.w1.rank", "tested: 0, 0.1", "--eps 0.05"]),
        (["--gate", "ca+.w1@8/255 <= 10"], ["8/255 is not tested", "tested: 0, 0.1"]),
        (["--gate", "ca+.w1.height > 3"], ["'ca+.w1.height'", "ca+.w1.rank"]),
        (["--gate", "ca+.w1.kept_rank > 3"], ["'ca+.w1.kept_rank'", "ca+.w1.rank"]),
    ],
)
def test_flags(audit, refused, flags: list[str], words: list[str]) -> None:
    refused(audit("--out", "run", *flags), *words)


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("ca", ["'ca'", "ca+"]),
        ("", ["not understood", "ca+.w1"]),
        ("ca+.m1", ["'ca+.m1'", "ca+.w1"]),
        ("ca+.w0", ["ca+.w0", "at least 1"]),
        ("shift.w2", ["shift.w2", "no number"]),
        ("ca+.w24", ["24 targets", "23"]),
        ("qa-.m4", ["4 targets", "first page of 3"]),
        ("../../etc", ["not understood"]),
    ],
)
def test_scenarios(audit, refused, only: str, words: list[str]) -> None:
    refused(audit("--out", "run", only=only), *words)


def test_verbs(call, refused) -> None:
    refused(call("audot"), "audot")
    assert "Commands" in call().words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epsilon = [0.1]", ["'epsilon'", "eps, "]),
        ("eps = 'much'", ["eps"]),
        ("attacked = 'all'", ["attacked", "'all'"]),
        ("eps = [0.1", ["not TOML"]),
        ("steps = -1", ["steps", "-1"]),
        ("scenarios = []", ["no scenario"]),
    ],
)
def test_configuration_files(call, labelled: Path, refused, text: str, words: list[str]) -> None:
    Path("audit.toml").write_text(text)
    refused(
        call("audit", "--config", "audit.toml", "--data", labelled, "--model", "module:little_models:good", "--out", "r"),
        *words,
    )


def test_configuration_that_is_not_there(audit, refused) -> None:
    refused(audit("--config", "nothing.toml"), "nothing.toml", "cannot be read")


@pytest.mark.parametrize("written", ['["8/255", 0.1]', '"8/255, 0.1"', '["0.1", "8/255"]'])
def test_a_configuration_file_takes_eps_as_the_flag_does(written: str, tmp_path: Path) -> None:
    from embattle.cli.audit import _settings

    (tmp_path / "audit.toml").write_text(f"eps = {written}\n")
    assert _settings(tmp_path / "audit.toml", {}).eps == (8 / 255, 0.1)
    assert _settings(tmp_path / "audit.toml", {"eps": ["16/255"]}).eps == (16 / 255,)
    assert _settings(None, {"eps": ["8/255,0.1"]}).eps == (8 / 255, 0.1)
    (tmp_path / "audit.toml").write_text("eps = 0.1\n")
    assert _settings(tmp_path / "audit.toml", {}).eps == (0.1,)


def test_the_help_and_the_page_name_every_key_of_a_configuration_file(call) -> None:
    from embattle.audit import AuditConfig

    help_text = call("audit", "--help").words.partition("Keys of a --config FILE")[2]
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("## Settings in a file")[2].partition("\n## ")[0]
    for key in AuditConfig.model_fields:
        assert re.search(rf"\b{key}\b", help_text), key
        assert f"\n| `{key}` |" in table
    assert table.count("\n| `") == len(AuditConfig.model_fields)


def test_flags_win_over_the_configuration_file(audit) -> None:
    Path("audit.toml").write_text("eps = [0.5]\nfindings = 0\nseed = 4\n")
    assert audit("--config", "audit.toml", "--out", "run").code == 0
    config = eb.records.load_summary(Path("run"))
    assert [point["eps"] for point in config["threats"][0]["curve"]] == [0.0, 0.1]
    assert config["findings"] == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nan", ["NaN", "24 of 24"]),
        ("wrong_rank", ["2, 4)", "flatten or pool"]),
        ("constant", ["collapsed", "24"]),
        ("one_for_all", ["(n, D)"]),
        ("pair", ["tuple", "one tensor"]),
        ("zero", ["24 of 24", "all zeros", "euclidean"]),
        ("whole_numbers", ["int64", "floats"]),
        ("too_wide", ["RuntimeError", "--size", "doctor"]),
        ("not_built", ["FileNotFoundError", "weights.pt", "python -c"]),
        ("no_model", ["returned a str"]),
        ("absent", ["has no 'absent'"]),
        ("SETTINGS", ["not callable"]),
        ("module:no_such_package:good", ["cannot import 'no_such_package'"]),
        ("module:broken_models:good", ["SyntaxError"]),
        ("module:little_models", ["module:package.module:factory"]),
        ("modul:little_models:good", ["checkpoint:...", "module:..."]),
        ("C:model.safetensors", ["checkpoint:...", "module:..."]),
        ("checkpoint:nothing.safetensors", ["nothing.safetensors", "embattle train"]),
        ("hf:nothing", ["config.json"]),
    ],
)
def test_models(audit, refused, model: str, words: list[str]) -> None:
    refused(audit("--out", "run", model=model), *words)


def test_a_model_whose_embeddings_change_their_length_on_the_way(audit) -> None:
    said = audit("--out", "run", model="two_lengths")
    assert said.code == 2
    assert "same size" in said.words
    assert "Traceback" not in said.err
    assert not Path("run/summary.json").exists()
    assert not Path("run/report.html").exists()


def test_preprocessing_needs_a_model_that_takes_it(call, refused, labelled: Path) -> None:
    refused(
        call("audit", "--data", labelled, "--size", 8, "--channels", 3, "--out", "r"), "--size", "--channels", "--model"
    )


def test_a_checkpoint_that_is_cut_off(audit, refused) -> None:
    Path("cut.safetensors").write_bytes(b'\x40\0\0\0\0\0\0\0{"em')
    refused(audit(model="checkpoint:cut.safetensors"), "cut.safetensors", "damaged")


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(unlabelled: Path, tmp_path: Path) -> Path:
    """Six good pictures to which a test adds a bad one."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for path in sorted(unlabelled.iterdir())[:6]:
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", ["truncated.jpg", "truncated.png", "bomb.png", "zero.png", "text.jpg"])
def test_damaged_pictures(audit, refused, shelf: Path, hostile_images: Path, name: str) -> None:
    shutil.copy(hostile_images / "bad" / name, shelf)
    refused(audit("--out", "run", data=shelf), name, "skip")


def test_a_bomb_is_told_by_its_header(audit, shelf: Path, hostile_images: Path) -> None:
    shutil.copy(hostile_images / "bad" / "bomb.png", shelf)
    said = audit("--out", "run", data=shelf)
    assert "50,000" in said.words or "50000" in said.words


def test_damaged_pictures_may_be_skipped(audit, shelf: Path, hostile_images: Path) -> None:
    for name in ("truncated.jpg", "bomb.png"):
        shutil.copy(hostile_images / "bad" / name, shelf)
    said = audit("--on-error", "skip", "--size", 12, "--out", "run", data=shelf)
    assert said.code == 0, said.words
    summary = eb.records.load_summary(Path("run"))
    assert summary["subject"]["gallery"] == 6
    assert any("left out" in note and "2" in note for note in summary["notes"])


def test_odd_pictures_work(audit, shelf: Path, hostile_images: Path) -> None:
    odd = sorted((hostile_images / "odd").iterdir())
    assert {"sixteen.png", "cmyk.jpg", "palette.png", "animated.gif"} <= {path.name for path in odd}
    for path in odd:
        shutil.copy(path, shelf)
    said = audit("--size", 12, "--out", "run", data=shelf)
    assert said.code == 0, said.words
    summary = eb.records.load_summary(Path("run"))
    assert summary["subject"]["gallery"] == 6 + len(odd)
    assert any("animated" in note for note in summary["notes"])


def test_folders_without_pictures(audit, refused, shelf: Path, tmp_path: Path) -> None:
    empty, lonely, few = (tmp_path / name for name in ("empty", "lonely", "few"))
    for folder, count in ((empty, 0), (lonely, 1), (few, 3)):
        folder.mkdir()
        for path in sorted(shelf.iterdir())[:count]:
            shutil.copy(path, folder)
    refused(audit("--out", "run", data=empty), "no picture")
    refused(audit("--out", "run", data=lonely), "only one picture")
    refused(audit("--out", "run", "--k", 1, data=few), "3 pictures", "at least 4")
    refused(audit("--out", "run", data=tmp_path / "nowhere"), "nowhere")
    refused(audit("--out", "run", data="minst"), "Did you mean mnist")
    refused(audit("--out", "run", data=shelf / sorted(os.listdir(shelf))[0]), "is a file")


def test_named_sets_that_are_not_there(audit, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("urllib.request.OpenerDirector.open", offline)
    refused(audit("--data-root", tmp_path / "root", data="mnist"), "mnist", str(tmp_path / "root"))


def test_pictures_without_labels(call, audit, refused, unlabelled: Path) -> None:
    sources = [f"{source.name}:" for source in eb.embedders.ADAPTERS]
    refused(call("audit", "--data", unlabelled, "--threads", 1, "--out", "run"), "no labels", "--model", *sources)
    refused(audit("--out", "run", data=unlabelled, only="class"), "no labels", "class")
    for gate in ("recall@1 > 0.5", "map@r > 0.5", "class > 3", "class.distance@0.1 > 3"):
        said = audit("--out", "run", "--gate", gate, data=unlabelled, only="ca+,class")
        refused(said, f"'{gate}'", "is not measured", "no labels", "sub-folder per class")
    said = audit("--out", "run", data=unlabelled, only="ca+,class,shift")
    assert said.code == 0, said.words
    summary = eb.records.load_summary(Path("run"))
    assert {threat["threat"] for threat in summary["threats"]} == {"ca+.w1", "shift"}
    skipped = {row["scenario"]: row["reason"] for row in summary["skipped"]}
    assert "sub-folder per class" in skipped["class"]
    assert summary["clean"] == {}
    assert "class" in Path("run/report.html").read_text()


def test_pictures_from_python(labelled: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 8))
    embedder = eb.Embedder(module)
    for bad in (float("nan"), float("inf"), 7.0, -1.0):
        x = torch.rand(4, 3, 12, 12)
        x[2, 0, 3, 3] = bad
        with pytest.raises(PixelError, match=r"\[0, 1\]"):
            embedder(x)
        with pytest.raises(PixelError, match=r"\[0, 1\]"):
            eb.attacks.fgsm(budget=eb.Linf(0.1))(embedder, x, eb.objectives.Shift(anchor=torch.rand(4, 8)))
    with pytest.raises(InputError, match="uint8"):
        eb.data.ImageSet(name="floats", images=torch.rand(4, 3, 12, 12), ids=tuple("abcd"))


# --- run folders ----------------------------------------------------------------------------------------------------


def test_a_run_folder_of_another_configuration(audit) -> None:
    assert audit("--out", "run").code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    said = audit("--out", "run", "--seed", 1)
    assert said.code == 2
    assert "another configuration" in said.words
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_out_is_a_file(audit, refused) -> None:
    Path("run").write_text("mine")
    refused(audit("--out", "run"), "run is a file")
    refused(audit("--out", "run/below"), "run/below", "--out")
    assert Path("run").read_text() == "mine"


def test_runs_is_a_file(audit, refused) -> None:
    Path("runs").write_text("mine")
    refused(audit(), "runs/", "--out")


def test_out_holds_something_else(audit, refused) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter1.tex").write_text("mine")
    refused(audit("--out", "thesis"), "chapter1.tex", "empty --out")
    assert os.listdir("thesis") == ["chapter1.tex"]


def test_out_holds_a_damaged_run(audit) -> None:
    Path("run").mkdir()
    Path("run/config.json").write_text("{")
    said = audit("--out", "run")
    assert said.code == 2
    assert "run holds a run of another configuration" in said.words
    assert os.listdir("run") == ["config.json"]


@pytest.fixture
def locked_out() -> Iterator[None]:
    """Without the rights of root, to whom no folder is closed; undone at the end."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    if user == 0:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, other than those of pytest, with one in it that nobody may write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir()
        yield folder
        (folder / "locked").chmod(0o755)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_out_may_not_be_written(
    audit, refused, labelled: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch, request, mode: int
) -> None:
    assert audit("--out", "warm").code == 0  # what is imported late is imported now, while it may be read
    shutil.copytree(labelled, open_folder / "shop")
    (open_folder / "locked").chmod(mode)
    monkeypatch.chdir(open_folder)
    request.getfixturevalue("locked_out")
    for out in ("locked/run", "locked"):
        refused(audit("--out", out, data="shop"), "locked", "Permission denied", "--out")


def test_a_labelled_folder_without_a_model_trains_a_stand_in(call, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "shop" / str(label)).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(draw.integers(0, 60, (16, 16)) + 150 * label, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shop" / str(label) / f"{index}.png")
    said = call(
        "audit", "--data", tmp_path / "shop", "--only", "shift", "--eps", 0.1, "-n", 2, "--k", 2, "--steps", 1,
        "--threads", 1, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.words
    assert any("No model was given" in note for note in eb.records.load_summary(Path("run"))["notes"])


def test_what_python_refuses_leaves_nothing(tmp_path: Path, labelled: Path) -> None:
    gallery = eb.data.load(str(labelled), split="all")
    embedder = eb.Embedder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 8)))
    with pytest.raises(InputError, match="k = 24"):
        audit_in_python(AuditConfig(k=24), gallery, embedder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
