"""What the site says about parts, verbs and results is written here, from the code and the result files, at every build.

A page asks for it with a comment on a line of its own, so that nothing generated is committed and nothing can go stale:

    <!-- generated: catalogue -->              every registered part, by kind
    <!-- generated: verbs -->                  every verb of the command line with its flags
    <!-- generated: top -->                    where each name of `embattle.__all__` is described
    <!-- generated: api embattle.attacks -->   the names a package exports and the parts registered in it
    <!-- generated: result NAME.json ca+.w1 -->   a threat of a committed result file as a table, with its provenance
    <!-- generated: reproduction NAME.json -->    a committed reproduction beside its paper
    <!-- generated: scores NAME.json -->          the robustness scores of a committed reproduction, model beside model
    <!-- generated: benchmark loop -->        a committed benchmark
"""

from __future__ import annotations

import html
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

import benchmarks  # noqa: E402

import embattle  # noqa: E402
from embattle.cli.catalogue import KINDS  # noqa: E402
from embattle.registry import Entry, Registry  # noqa: E402
from embattle.report.figures import eps_text, figure_text, left_out_text  # noqa: E402

_MARKER = re.compile(r"^<!-- generated: (?P<what>\w+)(?P<arguments>(?: \S+)*) -->$", re.MULTILINE)
_ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
# The theme's script can load a diagram library and ask a code host for star counts; nothing here uses either.
_OUTSIDE = re.compile(r"https://(?:unpkg\.com|api\.github\.com)/[\w@./-]*")
# A page called index.md would be the section itself.
_API_PAGES = {"index": "search"}
_KIND_LEADS = {
    "attacks": "Recipes: the loop with its parts chosen. In Python they are functions of `embattle.attacks`.",
    "objectives": "What the attacker wants, as a differentiable loss with a criterion of success.",
    "updates": "How a perturbation moves, given the gradient.",
    "scenarios": "The questions of an audit: who may change what, and what counts as reached.",
    "networks": "Networks that `embattle train` can build. Any other model is audited as well.",
    "losses": "Metric-learning losses of `embattle train`.",
    "datasets": "Data sets with a name. A folder of pictures needs none.",
    "defenses": "Ways to train a model against attacks, for `embattle harden --defense`.",
    "protocols": "Published experiments that `embattle reproduce` runs again.",
    "models": "Where a model may come from: the part before the colon in `--model`.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are kept at the root of the repository."""
    for name, source in _ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces every marker of a page."""

    def written(match: re.Match[str]) -> str:
        build = _GENERATORS.get(match["what"])
        if build is None:
            raise PluginError(f"{page.file.src_uri}: {match[0]} is not known; known: {', '.join(_GENERATORS)}")
        return "\n".join(build(*match["arguments"].split()))

    return _MARKER.sub(written, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Takes the addresses out of the theme's script: no page of ours may ask anybody else for anything."""
    for script in Path(config.site_dir, "assets", "javascripts").glob("bundle.*.js*"):
        if script.suffix == ".map":
            script.unlink()
            continue
        script.write_text(_OUTSIDE.sub("about:blank", script.read_text(encoding="utf-8")), encoding="utf-8")


def _catalogue() -> Iterator[str]:
    for label, kind in KINDS.items():
        yield f"\n## {label.capitalize()}\n\n{_KIND_LEADS.get(label, '')}\n"
        for entry in kind.entries():
            yield f'\n### `{entry.name}` {{ #{label}-{_slug(entry.name)} data-part="{label}:{entry.name}" }}\n'
            yield f"{entry.summary}\n"
            facts = {
                "Paper": entry.paper,
                "Access": _access(entry),
                "Differs": entry.differs,
                "API": f"[`{entry.build.__qualname__}`][{_path(entry.build)}]" if _described(entry) else "",
            }
            yield from (f"- **{name}:** {fact}" for name, fact in facts.items() if fact)
            example = kind.example(entry, entry.name)
            language = "bash" if example.startswith("embattle ") else "python"
            yield f"\n```{language}\n{example.replace('; ', chr(10))}\n```\n"


def _described(entry: Entry) -> bool:
    return f"{entry.build.__module__}.".startswith(tuple(f"{package}." for package in _api_packages()))


def _access(entry: Entry) -> str:
    from embattle.report.phrases import ACCESS

    return ACCESS.get(entry.access, entry.access)


def _slug(name: str) -> str:
    return name.replace("+", "-plus").replace("_", "-") if not name.endswith("-") else f"{name}minus"


def _verbs() -> Iterator[str]:
    import typer.main

    from embattle.cli.app import app

    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items(), key=lambda pair: (pair[0] != "audit", pair[0])):
        context = type(group).context_class(command, info_name=f"embattle {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        yield f'\n## `embattle {name}` {{ #{name} data-verb="{name}" }}\n\n{inspect.cleandoc(command.help or "")}\n'
        yield f"```text\nembattle {name} {usage}\n```\n"
        yield "| argument or flag | meaning |\n|---|---|"
        records = (parameter.get_help_record(context) for parameter in command.get_params(context))
        yield from (f"| <code>{_cell(flag)}</code> | {_cell(meaning)} |" for flag, meaning in filter(None, records))


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;").replace("\n", " ")


def _top() -> Iterator[str]:
    yield "| name | what it is |\n|---|---|"
    for name in embattle.__all__:
        thing = getattr(embattle, name)
        if inspect.ismodule(thing):
            yield f"| [`{name}`]({_API_PAGES.get(name, name)}.md) | {_first_line(thing)} |"
        else:
            yield f"| [`{name}`][{_path(thing, name)}] | {_first_line(thing) if callable(thing) else f'`{thing}`'} |"


def _api(package: str) -> Iterator[str]:
    """Directives of mkdocstrings for what a package exports, then for what is registered in it, each thing once."""
    home = importlib.import_module(package)
    shown: list[str] = []
    for name in getattr(home, "__all__", None) or _own_public(home):
        thing = getattr(home, name)
        if isinstance(thing, Registry):
            shown += [_path(entry.build) for entry in thing]
        elif not inspect.ismodule(thing):
            shown.append(_path(thing, name, package))
    own, others = [], []
    for path in dict.fromkeys(shown):
        # What a package passes on is described once, where it is at home.
        better = max((known for known in _api_packages() if path.startswith(f"{known}.")), key=len, default=package)
        (own if better == package else others).append(path)
    if others:
        links = (f"[`{path.rpartition('.')[2]}`][{path}]" for path in others)
        yield f"Exported here, described elsewhere: {', '.join(links)}.\n"
    yield from (f"::: {path}\n" for path in own)


def _api_packages() -> list[str]:
    """The packages and modules that a page of the API describes."""
    return [
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"<!-- generated: api (\S+) -->", page.read_text(encoding="utf-8"))
    ]


def _own_public(module: Any) -> list[str]:
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and (isinstance(thing, Registry) or getattr(thing, "__module__", "") == module.__name__)
    ]


def _path(thing: Any, name: str = "", package: str = "") -> str:
    """Where a thing is defined, as mkdocstrings calls it; a constant is looked for where its name is assigned."""
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    for home in sorted(key for key in sys.modules if key.startswith(package or "embattle.")):
        source = inspect.getsource(sys.modules[home])
        if re.search(rf"^{re.escape(name)}(: .+)? = ", source, re.MULTILINE):
            return f"{home}.{name}"
    raise PluginError(f"{package or 'embattle'} exports {name}, and no module assigns it")


def _first_line(thing: Any) -> str:
    return _cell((inspect.getdoc(thing) or "").split("\n\n", 1)[0].replace("\n", " "))


def _result(name: str, threat: str) -> Iterator[str]:
    result = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    found = next((row for row in result["threats"] if row["threat"] == threat), None)
    if found is None:
        raise PluginError(f"results/{name} has no threat {threat!r}")
    metrics = list(dict.fromkeys(key for point in found["curve"] for key in point["figures"]))
    yield f"| ε | {' | '.join(metrics)} | forwards |\n|---{'|---' * (len(metrics) + 1)}|"
    for point in found["curve"]:
        cells = [_figure(point["figures"].get(key)) for key in metrics]
        yield f"| {_eps(point['eps'])} | {' | '.join(cells)} | {point['cost']['forwards']:g} |"
    yield (
        f"\nThreat `{threat}`, grade {found['grade']}. Success: {found['criterion']}. {result['title']}. "
        f"`results/{name}`, {result['created'][:10]}, commit `{result['commit']}`, {result['cpu']}, "
        f"{result['cores']} cores, torch {result['torch']}, seed {found['attack']['seed']}."
    )


def _reproduction(name: str) -> Iterator[str]:
    from embattle.report import render_reproduction
    from embattle.report.trade_off import NAME, trade_off_svg

    result = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    told = render_reproduction(result).partition("\n\n")[2]
    # The page holds the chart itself: a file beside the result is no part of the site.
    yield told.replace(f"![What ξ trades]({NAME})", f"<div>{''.join(trade_off_svg(result).splitlines())}</div>")
    yield f"`results/{name}`"


def _scores(name: str) -> Iterator[str]:
    result = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    models = [row["model"] for row in result["robustness"]]
    recall = {model["name"]: f"{100 * model['recall@1']['value']:.1f} %" for model in result["models"]}
    attacked: dict[str, dict[str, str]] = {}
    for cell in result["cells"]:
        part, _, model = cell["column"].rpartition(" ")
        if cell["eps"]:
            attacked.setdefault(part, {})[model] = f"{cell['ours']['value']:.3g}"
    scores = {row["model"]: row for row in result["robustness"]}
    lines: dict[str, Mapping[str, str]] = {"Recall@1, clean": recall}
    lines |= {f"`{part}`": found for part, found in attacked.items()}
    lines |= {
        f"**{title}**": {model: f"**{_score(row[key])}**" for model, row in scores.items()}
        for title, key in (("ERS", "ers"), ("ERS-legacy", "ers-legacy"))
    }
    lines["published"] = {model: "–" if row["paper"] is None else f"{row['paper']:g}" for model, row in scores.items()}
    yield f"| | {' | '.join(f'`{model}`' for model in models)} |"
    yield f"|---|{'---|' * len(models)}"
    for title, found in lines.items():
        yield f"| {title} | {' | '.join(found.get(model, '–') for model in models)} |"
    made, seeds = result["environment"], ", ".join(map(str, result["seeds"]))
    yield (
        f"\n`results/{name}`, {made['created'][:10]}, commit `{made['commit']}`, {made['cpu']}, {made['cores']} cores, "
        f"seed {seeds}, n = {result['attacked']} pictures, {result['epochs']} epochs, 95 % intervals over pictures."
    )


def _score(figure: dict[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{figure['value']:.1f} [{low:.1f}, {high:.1f}]"


def _eps(eps: float) -> str:
    return "0 (clean)" if eps == 0 else f"{eps:g} ({eps_text(eps)})"


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "undefined"
    # Rounding noise around zero is zero.
    low, high = (round(end, 9) + 0.0 for end in figure["ci"])
    unit = figure["unit"] if figure["unit"] in ("%", "share") else ""
    text = figure_text({**figure, "unit": unit, "value": round(figure["value"], 9) + 0.0, "ci": (low, high)})
    apart = left_out_text(figure)
    return f"{text}<br><small>n = {figure['n']}{f', {apart}' if apart else ''}</small>"


_GENERATORS: dict[str, Any] = {
    "catalogue": _catalogue, "verbs": _verbs, "top": _top, "api": _api, "result": _result, "reproduction": _reproduction,
    "scores": _scores, "benchmark": benchmarks.table,
}  # fmt: skip
