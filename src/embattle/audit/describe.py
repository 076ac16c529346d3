"""The unit that describes an audit: what was audited, how good it is when nobody attacks, what each threat means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from embattle.audit.attack_unit import build_attack
from embattle.audit.checkup import warnings
from embattle.audit.config import AuditConfig
from embattle.audit.same_model import probe
from embattle.data import ImageSet
from embattle.metrics import map_at_r, recall_at_k
from embattle.records.robustness import planned_robustness
from embattle.runs import Output
from embattle.scenarios.classes import class_count
from embattle.scenarios.scenario import Scenario, named
from embattle.scenarios.subject import Subject, page_length
from embattle.scenarios.universal import is_universal, learnt_from
from embattle.vectors import spread

# Pictures that the model is checked on before its figures are believed.
_LOOKED_AT = 4


def usable(config: AuditConfig, gallery: ImageSet) -> tuple[list[Scenario], dict[str, str]]:
    """The scenarios that can run on the data, and why the others, by name, cannot: they need labels, or more classes."""
    runs, skipped, classes = [], {}, class_count(gallery)
    for scenario in map(named, config.scenarios):
        if classes >= scenario.needs_classes:
            runs.append(scenario)
        elif classes == 0:
            skipped[scenario.name] = _without_labels(gallery)
        else:
            wanted = scenario.needs_classes
            skipped[scenario.name] = f"all pictures of {gallery.name} are of one class, and it takes {wanted} to run it"
    return runs, skipped


@dataclass(frozen=True, kw_only=True)
class _Prospect:
    """What descriptions need to know, without a model."""

    images: ImageSet
    preserve: int
    page: int


def prospect(config: AuditConfig, gallery: ImageSet) -> dict[str, Any]:
    """Which figures the summary of an audit is going to have, without their values: gates are looked up in it beforehand.

    Args:
        config: what will be tried.
        gallery: the pictures the system searches.
    """
    runs, skipped = usable(config, gallery)
    clean = dict.fromkeys(("recall@1", f"recall@{config.k}", "map@r"))
    left_out = skipped if gallery.labelled else {**skipped, **dict.fromkeys(clean, _without_labels(gallery))}
    setting = _Prospect(images=gallery, preserve=config.preserve, page=page_length(len(gallery), config.k))
    threats = []
    for scenario in runs:
        described = scenario.describe(setting)
        figures = dict.fromkeys((*described["metrics"], "success"))
        curve = [{"eps": eps, "figures": figures} for eps in (0.0, *config.eps)]
        threats.append({"threat": scenario.name, "metric": described["metric"], "curve": curve})
    robustness = planned_robustness([threat["threat"] for threat in threats], config.eps, suite=config.suite)
    return {
        "clean": clean if gallery.labelled else {}, "threats": threats, "robustness": robustness,
        "skipped": [{"scenario": name, "reason": reason} for name, reason in left_out.items()],
    }  # fmt: skip


def _without_labels(gallery: ImageSet) -> str:
    return f"{gallery.name} has no labels; give one sub-folder per class to run it"


def all_attacked(config: AuditConfig, gallery: ImageSet) -> str:
    """What to say where more pictures were to be attacked than there are."""
    return f"attacked = {config.attacked:,} is more than the {len(gallery):,} pictures of {gallery.name}: all of them are."


def describe(subject: Subject, config: AuditConfig) -> Output:
    """Rows on the subject, its clean quality, every threat, and what was skipped."""
    runs, skipped = usable(config, subject.images)
    rows: list[dict[str, Any]] = [subject_row(subject)]
    rows += clean_rows(subject, config.seed)
    rows += [threat_row(subject, scenario, config) for scenario in runs]
    rows += [{"row": "skipped", "scenario": name, "reason": reason} for name, reason in skipped.items()]
    if not subject.images.labelled:
        reason = _without_labels(subject.images)
        rows.append({"row": "skipped", "scenario": "clean recall@1 and mAP@R", "reason": reason})
    rows += [{"row": "note", "text": text, "warning": True} for text in (*model_warnings(subject), *out_of_reach(config))]
    rows += [{"row": "note", "text": text} for text in notes(subject, config)]
    return Output(rows=rows)


def out_of_reach(config: AuditConfig) -> Sequence[str]:
    """That steps of a given size and number cannot use the whole budget, so that the attack is weaker than its ε."""
    if config.step_size is None:
        return ()
    attack = build_attack(config, max(config.eps))
    reach = attack.steps * config.step_size
    if reach > max(config.eps) - 1e-9:
        return ()
    needed = math.ceil(max(config.eps) / config.step_size - 1e-9)
    return (
        f"{attack.steps} steps of {config.step_size:.4g} reach {reach:.4g} of ε = {max(config.eps):.4g}: every figure "
        f"there is of a weaker attack; set steps to {needed} or more, or leave out the step size.",
    )


def model_warnings(subject: Subject) -> Sequence[str]:
    """What makes every figure of a model doubtful, such as embeddings that differ from call to call."""
    return warnings(subject.embedder, subject.images.pixels(range(min(_LOOKED_AT, len(subject.images)))))


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return "the attack's own" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def subject_row(subject: Subject) -> dict[str, Any]:
    """What the audited system is."""
    images = subject.images
    return {
        "row": "subject", "model": subject.embedder.name, "fingerprint": subject.embedder.fingerprint,
        "similarity": subject.similarity.name, "lengths": [float(end) for end in torch.aminmax(subject.z.norm(dim=1))],
        "spread": spread(subject.z),
        "parameters": subject.embedder.parameter_count,
        "dimension": int(subject.z.shape[1]), "data": images.name, "gallery": len(images),
        "picture": [images.channels, *images.size], "labelled": images.labelled,
        "classes": len(images.classes) if images.classes else 0, "page": subject.page, "probe": probe(subject),
    }  # fmt: skip


def clean_rows(subject: Subject, seed: int) -> list[dict[str, Any]]:
    """How good it is when nobody attacks; nothing where there are no labels."""
    if subject.images.labels is None:
        return []
    z, labels = subject.z, subject.images.labels
    figures = {"recall@1": recall_at_k(z, labels, subject.similarity, k=1).figure}
    if subject.k > 1:
        figures[f"recall@{subject.k}"] = recall_at_k(z, labels, subject.similarity, k=subject.k).figure
    figures["map@r"] = map_at_r(z, labels, subject.similarity, seed=seed).figure
    return [{"row": "clean", "figure": name, "value": figure.to_json()} for name, figure in figures.items()]


def threat_row(subject: Subject, scenario: Scenario, config: AuditConfig) -> dict[str, Any]:
    """What one scenario means, and how it is attacked."""
    attack = build_attack(config, max(config.eps))
    pictures = learnt_from(len(subject.images), config.attacked)
    shared = {"perturbations": config.targets, "learnt_from": pictures} if is_universal(scenario) else {}
    return {
        "row": "threat", "threat": scenario.name, **scenario.describe(subject), "access": "gradient",
        "attack": {
            "name": config.attack, "steps": config.rule or attack.steps, **shared, "seed": config.seed,
            **({} if config.step_size is None else {"step_size": config.step_size}),
        },
        "reproduce": f"--only {scenario.name}",
    }  # fmt: skip


def notes(subject: Subject, config: AuditConfig) -> Sequence[str]:
    """What a reader of the figures should know."""
    told = list(subject.images.notes)
    if config.attacked > len(subject.images):
        told.append(all_attacked(config, subject.images))
    if len(config.eps) == 1:
        told.append(
            f"Only ε = {config.eps[0]:.4g} was tested: what succeeds there has the grade F, whatever less would do."
        )
    small = [eps for eps in config.eps if eps * 255 < 1]
    if small:
        told.append(
            f"ε = {', '.join(f'{eps:g}' for eps in small)} is less than one grey level (1/255 = 0.0039): a saved picture "
            f"cannot change at all there."
        )
    if config.departures:
        settings = ", ".join(
            f"{name} = {_plain(given)} (the suite has {_plain(usual)})"
            for name, (given, usual) in config.departures.items()
        )
        told.append(f"Not the published setting of the suite {config.suite}: {settings}. Compare scores of equal settings.")
    own = "stays in the gallery" if subject.keep_own else "is taken out of the gallery"
    told.append(
        f"Ranks count the gallery items that are strictly closer, as a percentage of {subject.ranked:,}; ties do not count "
        f"against an item. The attacked picture's own clean copy {own}. All figures are of pictures saved with 8 bits."
    )
    return told
