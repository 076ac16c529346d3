"""Run folders: one configuration each, found again, never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embattle.errors import InputError, RunMismatch
from embattle.records import Unit
from embattle.records.difference import differences
from embattle.runs import configuration_hash, describe_environment, folder, open_run

CONFIG = {"eps": 0.1, "names": ["a", "b"]}
PLAN = [Unit(kind="embed", params={"n": n}, samples=(), needs=()) for n in range(2)]


def opened(**changes: object) -> folder.RunFolder:
    return open_run(**{"name": "audit", "config": CONFIG, "plan": PLAN, "command": "embattle audit", **changes})


def test_the_hash_is_of_the_content() -> None:
    assert configuration_hash({"a": 1, "b": 2.0}) == configuration_hash({"b": 2.0, "a": 1})
    assert configuration_hash({"a": 1}) != configuration_hash({"a": 2})
    assert configuration_hash({"a": 0.1 + 0.2}) != configuration_hash({"a": 0.3})
    with pytest.raises(InputError):
        configuration_hash({"a": float("nan")})


def test_a_new_run_says_what_it_is(tmp_path: Path) -> None:
    run = opened(parent=tmp_path)
    assert not run.resumed
    assert run.path.parent == tmp_path
    assert run.path.name.endswith(f"-audit-{configuration_hash(CONFIG)[:8]}")
    content = json.loads((run.path / "config.json").read_text())
    assert content == {
        "hash": configuration_hash(CONFIG), "name": "audit", "config": CONFIG, "plan": [unit.id for unit in PLAN],
    }  # fmt: skip
    assert json.loads((run.path / "env.json").read_text())["command"] == "embattle audit"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "env.json"]


def test_it_is_found_again_on_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(parent=tmp_path)
    old = first.path.with_name("1999-12-31" + first.path.name[10:])
    first.path.rename(old)
    again = opened(parent=tmp_path, command="another command")
    assert again.resumed
    assert again.path == old
    assert json.loads((old / "env.json").read_text())["command"] == "embattle audit"
    assert not opened(parent=tmp_path, config={**CONFIG, "eps": 0.2}).resumed
    assert not opened(parent=tmp_path, name="other").resumed


def test_commits_of_later_starts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["first", "first", "second+dirty", "first", "third", "second+dirty"])
    monkeypatch.setattr(folder, "describe_environment", lambda *given: {"commit": next(commits), "created": given[0]})
    seen = []
    for start in range(6):
        run = opened(parent=tmp_path, command=f"start {start}")
        found = json.loads((run.path / "env.json").read_text())
        assert (found["commit"], found["created"]) == ("first", "start 0")
        seen.append(found.get("resumed_at"))
    assert seen == [None, None, ["second+dirty"], ["second+dirty"], ["second+dirty", "third"], ["second+dirty", "third"]]


def test_the_device_is_kept(tmp_path: Path) -> None:
    run = opened(parent=tmp_path, device="cuda (card)")
    assert json.loads((run.path / "env.json").read_text())["device"] == "cuda (card)"


def test_an_interrupted_start_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "run"
    opened(out=out)
    (out / "config.json").unlink()  # killed between the two files
    (out / ".config.json.999999999-00000000.tmp").write_text("{")
    (out / ".model.state.safetensors.999999999-00000000.tmp").write_text("large")
    run = opened(out=out)
    assert not run.resumed
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "env.json"]


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    out = opened(out=tmp_path / "run").path
    busy = out / ".summary.json.1-00000000.tmp"  # process 1 lives
    busy.write_text("{")
    opened(out=out)
    assert busy.exists()


@pytest.mark.parametrize("name", ["config.json", "units", "other"])
def test_foreign_folders_are_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    if name == "config.json":
        (out / name).write_text('{"hash": "00ff"}')
    elif name == "units":
        (out / name).mkdir()
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(RunMismatch, match="another configuration" if name == "config.json" else "letter.txt"):
        opened(out=out)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_refusal_names_every_setting_that_differs(tmp_path: Path) -> None:
    first = {"audit": {"eps": [0.01, 0.1], "k": 10, "xi": None}, "model": {"fingerprint": "a" * 64}, "threads": 2}
    second = {"audit": {"eps": [0.1], "k": 10, "xi": 1.0}, "model": {"fingerprint": "b" * 64}, "device": "cpu"}
    out = opened(out=tmp_path / "run", config=first).path
    with pytest.raises(RunMismatch) as caught:
        opened(out=out, config=second)
    told = str(caught.value)
    for words in (
        "audit.eps is [0.01,0.1] there and [0.1] here", "audit.xi is null there and 1.0 here",
        "model.fingerprint is aaaaaaaaaaaa… there and bbbbbbbbbbbb… here", "threads is 2 there and not set here",
        "device is not set there and cpu here", "choose another --out, or delete that folder",
    ):  # fmt: skip
        assert words in told
    assert "audit.k" not in told
    with pytest.raises(RunMismatch, match="it is one of audit, and this is ranking-table-1"):
        opened(out=out, name="ranking-table-1", config={"protocol": "ranking-table-1"})


def test_long_values_are_shown_where_they_differ() -> None:
    long = [f"scenario.w{number}" for number in range(40)]
    (told,) = differences({"names": long}, {"names": [*long[:30], "other", *long[31:]]})
    assert 'scenario.w30"' in told
    assert '"other"' in told
    assert len(told) < 200


@pytest.mark.parametrize("content", ['{"hash": "00ff", "config": [1], "name": 3}', "[]", '{"hash": "00ff", "config": {}}'])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    out = opened(out=tmp_path / "run").path
    (out / "config.json").write_text(content)
    with pytest.raises(RunMismatch, match="another configuration"):
        opened(out=out)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunMismatch, match="is a file"):
        opened(out=tmp_path / "file")
    with pytest.raises(InputError, match="Not a directory"):
        opened(out=tmp_path / "file" / "run")
    with pytest.raises(InputError, match="--out"):
        opened(parent=tmp_path / "file")


def test_the_environment() -> None:
    found = describe_environment("embattle audit --seed 3")
    assert found["command"] == "embattle audit --seed 3"
    assert {"created", "embattle", "commit", "python", "torch", "numpy", "platform", "cpu", "cores", "threads"} <= set(
        found
    )
    assert found["created"].endswith("+00:00")
    assert found["threads"] >= 1


def test_an_installed_copy_claims_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wheel inside somebody's repository must not carry that repository's commit."""
    import subprocess

    import embattle

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(
        ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
        check=True,
    )
    package = tmp_path / "site-packages" / "embattle"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(embattle, "__file__", str(package / "__init__.py"))
    assert describe_environment("")["commit"] is None
    subprocess.run(["git", "-C", tmp_path, "add", "-f", "."], check=True)
    assert len(describe_environment("")["commit"].removesuffix("+dirty")) == 12
