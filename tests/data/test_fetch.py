"""Downloads, against a real server on this machine: whole and checked, or nothing that looks finished."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embattle.data import load
from embattle.data.fetch import Remote, fetch
from embattle.data.mnist import _MNIST, _load
from embattle.errors import DataError

CONTENT = bytes(range(256)) * 4096


class _Server(http.server.BaseHTTPRequestHandler):
    """/good: the file; /wrong: other bytes; /half: cut; /long: too much; /slow, /drip: never done; the rest: 404."""

    asked: list[str]

    def do_GET(self) -> None:
        kind = self.path.strip("/").split("/")[0]
        self.asked.append(kind)
        if kind not in ("good", "wrong", "half", "half_honest", "long", "slow", "drip"):
            self.send_error(404)
            return
        body = {"wrong": CONTENT[::-1], "half_honest": CONTENT[:1000], "long": CONTENT + b"x"}.get(kind, CONTENT)
        self.send_response(200)
        if kind != "long":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "slow":
            self.server.released.wait(20)  # type: ignore[attr-defined]
        elif kind == "drip":
            for byte in body[:200]:
                if self.server.released.wait(0.05):  # type: ignore[attr-defined]
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        else:
            self.wfile.write(body[: len(body) // 2] if kind == "half" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    monkeypatch.setenv("no_proxy", "*")
    asked: list[str] = []
    handler = type("Handler", (_Server,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        running.released = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
        running.released.set()  # type: ignore[attr-defined]
        running.shutdown()


def remote(address: str, kind: str, name: str = "a.gz") -> Remote:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Remote(name=name, address=f"{address}/{kind}/{name}", size=len(CONTENT), sha256=digest)


def test_a_good_file_arrives_whole_and_is_not_fetched_again(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    seen: list[tuple[str, int, int]] = []
    folder = tmp_path / "new" / "set"
    first = fetch([remote(address, "good")], folder, progress=lambda *now: seen.append(now))
    assert first == [folder / "a.gz"]
    assert first[0].read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["a.gz"]
    assert seen[-1] == ("a.gz", len(CONTENT), len(CONTENT))
    assert [now[1] for now in seen] == sorted({now[1] for now in seen})
    assert fetch([remote(address, "good")], folder) == first
    assert asked == ["good"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("missing", "status 404, Not Found"),
        ("wrong", r"what came has the sha256 \w{64}, the original has \w{64}"),
        ("half", "the connection ended after|IncompleteRead"),
        ("half_honest", "the connection ended after 1,000 of 1,048,576 bytes"),
        ("long", "the server sends more than the 1,048,576 bytes of the original"),
        ("slow", "timed out"),
        ("drip", "it took too long, .* of 1,048,576 bytes had come"),
    ],
)
def test_what_goes_wrong_leaves_nothing_that_looks_finished(
    server: tuple[str, list[str]], tmp_path: Path, kind: str, why: str
) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=why) as caught:
        fetch([remote(server[0], kind)], tmp_path, silence=0.5, whole=1.0)
    assert time.monotonic() - start < 10
    assert f"{tmp_path} does not hold a.gz" in str(caught.value)
    assert f"{server[0]}/{kind}/a.gz could not be downloaded" in str(caught.value)
    assert "put the files there by hand" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "slow"])
def test_without_a_first_byte_no_folder_is_made(server: tuple[str, list[str]], tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="does not exist; it must hold"):
        fetch([remote(server[0], kind)], tmp_path / "mistyped" / "set", silence=0.5, whole=1.0)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(server: tuple[str, list[str]], tmp_path: Path) -> None:
    def interrupt(name: str, received: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([remote(server[0], "good")], tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_written_to(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    (tmp_path / "a.gz").write_bytes(CONTENT)
    stamp = (tmp_path / "a.gz").stat().st_mtime_ns
    # The second file fails: the first, a good one, stays as it is.
    with pytest.raises(DataError, match=r"does not hold b\.gz, and"):
        fetch([remote(address, "good"), remote(address, "wrong", "b.gz")], tmp_path)
    assert (tmp_path / "a.gz").stat().st_mtime_ns == stamp
    (tmp_path / "a.gz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.gz is not the original file: its length is 4 bytes, not 1,048,576"):
        fetch([remote(address, "good")], tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == b"mine"
    assert asked == ["wrong"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_else_under_the_name_is_a_sentence(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.gz")
    with pytest.raises(DataError, match=r"a\.gz (is not the original file|cannot be read)"):
        fetch([remote("http://127.0.0.1:9", "good")], tmp_path)


def test_without_a_network_folder_and_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DataError) as caught:
        load("mnist", root=tmp_path / "none")
    message = str(caught.value)
    folder = tmp_path / "none" / "mnist"
    assert message.startswith(f"the folder {folder} does not exist; it must hold t10k-images-idx3-ubyte.gz, t10k-labels-")
    assert list(tmp_path.iterdir()) == []
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz" in message
    assert "Temporary failure in name resolution" in message
    assert "--data-root or EMBATTLE_DATA" in message


def test_a_folder_that_cannot_be_made_is_a_sentence(server: tuple[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"Not a directory|File exists"):
        fetch([remote(server[0], "good")], tmp_path / "file" / "set")
    with pytest.raises(DataError, match="only http and https addresses are fetched"):
        fetch([Remote(name="a", address="file:///etc/hostname", size=1, sha256="0" * 64)], tmp_path)


@pytest.mark.real_data
def test_mnist_by_download_equals_mnist_on_disk(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    handler = type(
        "Files",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "__init__": lambda self, *a, **k: http.server.SimpleHTTPRequestHandler.__init__(
                self, *a, directory=str(data_root / "mnist"), **k
            ),
            "log_message": lambda self, *a: None,
        },
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        from dataclasses import replace

        source = replace(_MNIST, address=f"http://127.0.0.1:{running.server_address[1]}/")
        fetched = _load(source, "test", tmp_path, None)
        running.shutdown()
    assert fetched.fingerprint == load("mnist", root=data_root).fingerprint
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
