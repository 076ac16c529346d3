"""From the rows of a run to summary.json: figures per threat and ε, grades, findings. Rebuilt at any time, no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embattle.errors import InputError
from embattle.records.atomic import write_atomic
from embattle.records.grades import GRADES, grade, grade_range, half_eps, tested, withstood
from embattle.records.intervals import mean_figures, rate_figure
from embattle.records.masking import judge
from embattle.records.robustness import LEGACY, build_robustness, concerned
from embattle.records.store import LocalStore

SCHEMA = "embattle.summary/1"
Row = Mapping[str, Any]
# What a part of a run cannot share with the whole: other threats, their gates, the run folder.
_CHOICES = ("--only", "--gate", "--out")
# What the summary and the report read of each kind of row.
_FIELDS = {
    "sample": ("threat", "eps", "status", "success", "metrics", "cost"),
    "finding": ("threat", "eps", "original", "adversarial", "difference", "lists"),
    "subject": (),
    "clean": ("figure", "value"),
    "threat": ("threat", "metric", "metrics"),
    "masking": ("role", "eps", "steps", "sample", "loss", "success", "live"),
    "skipped": ("scenario", "reason"),
    "note": ("text",),
}


@dataclass
class _Rows:
    """The rows of a run, sorted by what they speak of."""

    subject: dict[str, Any] = field(default_factory=dict)
    clean: dict[str, Any] = field(default_factory=dict)
    threats: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, dict[float, list[Row]]] = field(default_factory=dict)
    seconds: dict[str, dict[float, list[float]]] = field(default_factory=dict)
    masking: list[Row] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def build_summary(run: Path) -> dict[str, Any]:
    """The content of summary.json from a run folder's config.json, env.json and finished units.

    Args:
        run: the run folder; it may be unfinished ("complete" is false then).

    Returns:
        JSON values in the schema "embattle.summary/1"; threats with the weakest first. A threat's grade is None when it
        was tested at no ε above 0, no attack on it has a defined outcome, or it is there for comparison only; its
        "grade_range" is the best and the worst that the intervals allow. "robustness" is there where the run is about the
        empirical robustness score.

    Raises:
        InputError: no run folder, or a damaged file in it.
    """
    config, environment = read_run(run)
    store = LocalStore(run)
    finished = store.done()
    plan = [unit_id for unit_id in config["plan"] if unit_id in finished]
    rows = _collect(store, plan)
    threats = [_threat(rows, name, environment["command"]) for name in rows.threats]
    for name in sorted(set(rows.samples) - set(rows.threats)):
        rows.notes.append(f"The attacks of {name} have results, but their description is not finished yet.")
    threats.sort(key=_weakness)
    place = {threat["threat"]: position for position, threat in enumerate(threats)}
    rows.findings.sort(key=lambda row: (place.get(row["threat"], len(place)), row["eps"]))
    robustness = _robustness(rows, threats, config["config"].get("audit"))
    return {
        "schema": SCHEMA,
        "name": str(config.get("name", "audit")),
        **{name: environment.get(name) for name in ("created", "command", "embattle", "commit")},
        "environment": environment,
        "config_hash": config["hash"],
        "subject": rows.subject,
        "clean": rows.clean,
        "threats": threats,
        **({} if robustness is None else {"robustness": robustness}),
        "findings": rows.findings,
        "skipped": rows.skipped,
        "warnings": rows.warnings,
        "notes": [*rows.warnings, *rows.notes],
        "units": {
            "planned": len(config["plan"]),
            "done": len(plan),
            "quarantined": len(set(store.quarantined()) & set(config["plan"])),
        },
        "complete": len(plan) == len(config["plan"]),
    }


def _collect(store: LocalStore, plan: Sequence[str]) -> _Rows:
    rows = _Rows()
    for unit_id in plan:
        samples: list[Row] = []
        for row in store.rows(unit_id):
            kind = str(row.get("row"))
            missing = [name for name in _FIELDS.get(kind, ()) if name not in row]
            if kind not in _FIELDS or missing:
                what = f"a row of kind {kind!r}" + (f" without {', '.join(missing)}" if missing else "")
                raise InputError(
                    f"unit {unit_id[:16]} has {what}; known kinds are {', '.join(_FIELDS)}. It was written by another "
                    "version of embattle: start the audit again in a new folder."
                )
            if kind == "sample":
                samples.append(row)
                rows.samples.setdefault(row["threat"], {}).setdefault(row["eps"], []).append(row)
            else:
                _file(rows, row, unit_id)
        _share_seconds(rows, samples, store.cost(unit_id).get("seconds"))
    return rows


def _file(rows: _Rows, row: dict[str, Any], unit_id: str) -> None:
    kind = row["row"]
    content = {name: value for name, value in row.items() if name != "row"}
    if kind == "subject":
        rows.subject = content
    elif kind == "clean":
        rows.clean[row["figure"]] = row["value"]
    elif kind == "threat":
        rows.threats[row["threat"]] = content
    elif kind == "masking":
        rows.masking.append(content)
    elif kind == "finding":
        rows.findings.append({**content, "unit": unit_id})
    elif kind == "skipped":
        rows.skipped.append(content)
    else:
        (rows.warnings if row.get("warning") else rows.notes).append(row["text"])


def _share_seconds(rows: _Rows, samples: Sequence[Row], seconds: float | None) -> None:
    """A unit's time is known as a whole; its samples share it by their passes through the model."""
    if seconds is None or not samples:
        return
    passes = [row["cost"]["forwards"] + row["cost"]["backwards"] for row in samples]
    total = sum(passes)
    for row, weight in zip(samples, passes, strict=True):
        share = weight / total if total else 1 / len(samples)
        rows.seconds.setdefault(row["threat"], {}).setdefault(row["eps"], []).append(seconds * share)


def _threat(rows: _Rows, name: str, command: str) -> dict[str, Any]:
    described = rows.threats[name]
    samples, seconds = rows.samples.get(name, {}), rows.seconds.get(name, {})
    curve = [point(described, eps, samples[eps], seconds.get(eps, [])) for eps in sorted(samples)]
    eps = half_eps(curve)
    # Rows hold only what narrows the command down: paths in it may differ between two starts of the same run.
    if "reproduce" in described:
        described = {**described, "reproduce": f"{without_flags(command, _CHOICES)} {described['reproduce']}"}
    letter, ends = grade(withstood(curve)) if tested(curve) else None, grade_range(curve)
    if name in LEGACY:
        letter = ends = eps = None
    if blind := _blind(samples):
        letter = ends = None
        rows.warnings.append(
            f"{name} is not graded: the attack met a zero gradient on {blind}, so its figures are those of no attack. Look "
            f"at the model with embattle doctor."
        )
    return {**described, "grade": letter, "grade_range": ends and list(ends), "half_eps": eps, "curve": curve}


def _robustness(rows: _Rows, threats: Sequence[Row], settings: Any) -> dict[str, Any] | None:
    """The score that a suite asked for, and whether its attacks can be trusted; None where nobody asked."""
    suite = settings.get("suite", "") if isinstance(settings, Mapping) else ""
    if not rows.subject or not concerned([threat["threat"] for threat in threats], suite=suite):
        return None
    return {**build_robustness(rows.subject, threats), "masking": judge(rows.masking)}


def _blind(samples: Mapping[float, Sequence[Row]]) -> str:
    """The pictures without a gradient at the largest ε, where they are half of them or more; else an empty string."""
    largest = max(samples, default=0.0)
    rows = samples.get(largest, ()) if largest else ()
    still = sum(row["status"] == "zero_gradient" for row in rows)
    return f"{still} of {len(rows)} pictures at ε = {largest:g}" if rows and 2 * still >= len(rows) else ""


def without_flags(command: str, flags: Sequence[str]) -> str:
    """A command line without some of its flags and their values; as it is where a shell could not read it.

    >>> without_flags("embattle audit --out here --data=x --seed 1", ("--out", "--data"))
    'embattle audit --seed 1'
    """
    try:
        words = iter(shlex.split(command))
    except ValueError:
        return command
    kept = []
    for word in words:
        if word in flags:
            next(words, None)
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return shlex.join(kept)


def point(threat: Row, eps: float, samples: Sequence[Row], seconds: Sequence[float]) -> dict[str, Any]:
    """Figures and mean cost of the samples of one threat at one ε.

    Args:
        threat: its description, with the metrics.
        eps: ε.
        samples: rows of kind "sample".
        seconds: what each took; another number of them than of samples: not known.

    Raises:
        InputError: samples with metrics that the description does not name.
    """
    kept = [row for row in samples if row["status"] != "non_finite"]
    failed = len(samples) - len(kept)
    described = {name: (spec["unit"], spec["higher_is_better"]) for name, spec in threat["metrics"].items()}
    unknown = sorted({name for row in kept for name in row["metrics"]} - set(described))
    if unknown:
        raise InputError(
            f"samples of {threat['threat']} have the metrics {', '.join(unknown)}, which its description does not "
            f"name; it names {', '.join(sorted(described))}."
        )
    columns = {name: [row["metrics"].get(name) for row in kept] for name in described}
    figures = {name: figure.to_json() for name, figure in mean_figures(columns, described, failed=failed).items()}
    success = rate_figure([row["success"] for row in kept], higher_is_better=False, failed=failed)
    cost = {name: _mean([row["cost"][name] for row in samples]) for name in ("forwards", "backwards")}
    # Time is missing when the side file of one of the units is: an average over the others would look complete.
    known = len(seconds) == len(samples)
    return {
        "eps": eps,
        "figures": {**figures, "success": success.to_json()},
        "cost": {**cost, "seconds": _mean(seconds) if known else None},
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _weakness(threat: Row) -> tuple[int, float, float, str]:
    """Sorting key: worst grade first, then the smallest ε, then the largest share of successes at the largest ε."""
    points = tested(threat["curve"])
    share = points[-1]["figures"]["success"]["value"] if points else -1.0
    place = -GRADES.index(threat["grade"]) if threat["grade"] else 1  # not graded: last
    eps = threat["half_eps"] if threat["half_eps"] is not None else float("inf")
    return place, eps, -share, threat["threat"]


def write_json_atomic(path: Path, obj: Any) -> None:
    """Writes readable JSON; whoever looks sees the old file or the whole new one.

    Args:
        path: the file; its folder is made when missing.
        obj: JSON values; NaN and infinity are not allowed.

    Raises:
        InputError: `obj` is no JSON, or the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    try:
        text = json.dumps(obj, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"cannot write {path.name} as JSON ({error}); write null for an undefined number.") from None
    write_atomic(path, text.encode("ascii") + b"\n")


def load_summary(path: Path) -> dict[str, Any]:
    """Reads a summary.json and checks its schema.

    Args:
        path: the file, or the run folder it lies in.

    Raises:
        InputError: no such file, a damaged one, or another schema.
    """
    file = path / "summary.json" if path.is_dir() else path
    summary = read_record(file, {"schema": str})
    if summary["schema"] != SCHEMA:
        raise InputError(
            f"{file} has the schema {summary['schema']!r}; this version reads {SCHEMA!r}. Rebuild it from its run "
            "folder with embattle report RUN."
        )
    kinds = {"clean": dict, "threats": list, "findings": list, "subject": dict, "units": dict}
    _check_fields(file, summary, kinds)
    return summary


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run folder says of itself: config.json (hash, config, plan) and env.json.

    Raises:
        InputError: no run folder, or a damaged file in it.
    """
    config = read_record(run / "config.json", {"hash": str, "config": dict, "plan": list})
    return config, read_record(run / "env.json", {"created": str, "command": str, "embattle": str})


def read_record(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A JSON file with at least the named fields, each of its kind.

    Raises:
        InputError: no such file, or a damaged one.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; name the folder of a run, as printed by embattle audit or reproduce."
        ) from None
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); name the folder of a run.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it is no JSON.") from None
    _check_fields(path, content, kinds)
    record: dict[str, Any] = content
    return record


def _check_fields(path: Path, content: Any, kinds: Mapping[str, type]) -> None:
    fields: Iterable[str] = content if isinstance(content, dict) else ()
    wrong = [name for name, kind in kinds.items() if name not in fields or not isinstance(content[name], kind)]
    if wrong or not isinstance(content, dict):
        raise InputError(f"{path} is damaged: {', '.join(wrong) or 'a record'} is missing or of the wrong kind.")
