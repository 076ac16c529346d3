"""The built site: strict, complete, and asking nobody else for anything."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.main

import embattle
from embattle.cli.app import app
from embattle.cli.catalogue import KINDS

ROOT = Path(__file__).resolve().parents[2]
PARTS = [(label, entry) for label, kind in KINDS.items() for entry in kind.entries()]
# Attributes from which a browser fetches without being asked. Links that a reader may follow are none of them.
FETCHED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href", "use": "href", "image": "href",
}  # fmt: skip
OUTSIDE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)


class Resources(HTMLParser):
    """What a page fetches, its text, and its elements with data attributes of ours."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.marked: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched.append(given.get(FETCHED.get(tag, "")) or "")
        self.fetched += [part.split()[0] for part in (given.get("srcset") or "").split(",") if part.strip()]
        self.fetched += re.findall(r"url\(['\"]?([^)'\"]+)", given.get("style") or "")
        self.marked |= {given[name] or "" for name in ("data-part", "data-verb") if name in given}

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def build(configuration: Path, target: Path) -> subprocess.CompletedProcess[str]:
    flags = ["--strict", "--config-file", str(configuration), "--site-dir", str(target)]
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", *flags], cwd=configuration.parent, capture_output=True, text=True,
        timeout=300, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def page(site: Path, name: str) -> Resources:
    return Resources((site / name).read_text(encoding="utf-8"))


def test_a_warning_stops_the_build(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("src", "results", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    front = tmp_path / "docs" / "index.md"
    front.write_text(
        front.read_text() + "\n[nowhere](nowhere.md) [nothing][embattle.attacks.nothing] [none](cli.md#none)\n"
    )
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    for said in ("nowhere.md", "embattle.attacks.nothing", "#none"):
        assert said in done.stdout + done.stderr


def test_the_catalogue_has_every_registered_part(site: Path) -> None:
    catalogue = page(site, "catalogue.html")
    assert catalogue.marked == {f"{label}:{entry.name}" for label, entry in PARTS}
    for label, entry in PARTS:
        example = KINDS[label].example(entry, entry.name)
        for said in (entry.summary, entry.paper, entry.differs, *example.split("; ")):
            assert shown(said) in catalogue.text, f"{label} {entry.name}: {said}"


def shown(text: str) -> str:
    """A docstring's line as a reader sees it: without the marks of Markdown."""
    return " ".join(text.replace("`", "").split())


def test_the_command_line_page_has_every_verb_and_flag(site: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    told = page(site, "cli.html")
    assert told.marked == set(commands)
    for command in commands.values():
        for parameter in command.params:
            assert all(flag in told.text for flag in parameter.opts if flag.startswith("-"))
            assert shown(parameter.help or "") in told.text


def test_the_api_has_every_exported_name(site: Path) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html")}
    names = "".join(pages.values())
    top = Resources(pages["index"]).text
    for name in embattle.__all__:
        assert name in top.split(), name
        thing = getattr(embattle, name)
        if isinstance(thing, type):
            assert f'id="{thing.__module__}.{thing.__qualname__}"' in names, name
        for exported in getattr(thing, "__all__", ()):
            part = getattr(thing, exported)
            if isinstance(part, type) or hasattr(part, "__code__"):
                assert f'id="{part.__module__}.{part.__qualname__}"' in names, f"{name}.{exported}"


def test_every_public_package_is_described(site: Path) -> None:
    written = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("**/*.md"))
    # The command line has its own page; runs are what a run folder is made of, for whoever adds a verb.
    inside = {"cli", "runs"}
    packages = {path.parent.name for path in (ROOT / "src" / "embattle").glob("*/__init__.py")} - inside
    for name in packages:
        exported = getattr(importlib.import_module(f"embattle.{name}"), "__all__", ())
        assert not exported or f"generated: api embattle.{name} " in written, f"write docs/api/{name}.md"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            assert [url for url in Resources(text).fetched if OUTSIDE.match(url)] == [], path
            assert "@import" not in text
        elif path.suffix == ".css":
            text = path.read_text(encoding="utf-8")
            urls = re.findall(r"url\(\s*['\"]?([^)'\"]+)", text) + re.findall(r"@import\s+['\"]([^'\"]+)", text)
            assert [url for url in urls if OUTSIDE.match(url)] == [], path
        elif path.suffix == ".js":
            # Licences and namespaces name addresses too, in comments and as bare hosts: code would fetch a file.
            code = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
            assert re.findall(r"https?://(?:unpkg|cdn|cdnjs|fonts|api)[^\"'` ]*", code) == [], path
    assert not list(site.rglob("*.woff2"))


def test_the_search_for_outside_resources_can_fail() -> None:
    found = Resources(
        '<script src="https://a/b.js"></script><link href="//c/d.css"><img srcset="https://e/f 2x" src="g.png">'
        '<p style="background: url(https://h/i)">'
    ).fetched
    assert [url for url in found if OUTSIDE.match(url)] == ["https://a/b.js", "//c/d.css", "https://e/f", "https://h/i"]


def test_every_marker_became_text(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert "generated: " not in path.read_text(encoding="utf-8").replace("<!-- generated: -->", ""), path


def test_tables_of_results_say_what_the_files_say(site: Path) -> None:
    told = page(site, "figures.html").text
    result = json.loads((ROOT / "results" / "fashion-mnist-c2f1-audit.json").read_text(encoding="utf-8"))
    assert "results/fashion-mnist-c2f1-audit.json" in told
    assert result["commit"] in told
    for threat in result["threats"]:
        for point in threat["curve"] if threat["threat"] in ("ca+.w1", "ca-.w1") else ():
            rank = point["figures"]["rank"]
            assert f"{rank['value']:.1f} % [{rank['ci'][0]:.1f}, {rank['ci'][1]:.1f}]n = {rank['n']}" in told
            share = point["figures"]["success"]
            left_out = f", {share['undefined']} undefined" if share["undefined"] else ""
            assert f"]n = {share['n']}{left_out}" in told


def test_the_readme_leads_to_every_guide() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Documentation\n")[2]
    guides = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("  - Guides:\n")[2].partition("  - Reference:")[0]
    pages = re.findall(r": (\S+\.md)$", guides, re.MULTILINE)
    assert len(pages) >= 9
    for page in ("quickstart.md", *pages):
        assert f"(docs/{page})" in readme, page


def test_the_built_site_is_not_committed() -> None:
    assert "/site/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
