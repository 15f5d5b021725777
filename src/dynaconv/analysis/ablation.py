"""``ablate``: one study, from its settings to its table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.comparison import Price
from dynaconv.analysis.engine import Nobody, Watcher, check, train_all
from dynaconv.analysis.experiment import about, listing_of
from dynaconv.analysis.measure import as_served, measure
from dynaconv.analysis.raw import Raw, StudyFolder, take_known
from dynaconv.analysis.runs import open_for
from dynaconv.analysis.studies import find_study
from dynaconv.analysis.study import Study, StudyArm
from dynaconv.analysis.study_report import write_study
from dynaconv.analysis.study_result import Ablation, summarise_study
from dynaconv.analysis.study_settings import StudySettings, arm_of, fitting
from dynaconv.analysis.widths import Width, at_width, width_for_parameters, width_for_time, width_of
from dynaconv.errors import UserError, differences, shortened
from dynaconv.inference import freeze
from dynaconv.tasks.network import ModelSpec, height_and_width
from dynaconv.tasks.task import TaskData
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.layout import with_layout


def ablate(
    settings: StudySettings,
    out: str | Path,
    raw: str | Path | None = None,
    watcher: Watcher | None = None,
    known: Sequence[str | Path] = (),
) -> Ablation:
    """Train the arms of a study over several seeds, and judge the paper's claim by them.

    Several processes may do this at once with the same ``out``, also on machines that share it: each takes runs that no
    other has. Results that ``raw`` has are not computed again, even where the runs' folders are gone; a run that was
    stopped goes on from its last checkpoint. Seeds and arms may be added later.

    Args:
        settings: which study, and how.
        out: the folder (:class:`~dynaconv.analysis.raw.StudyFolder` says what it holds).
        raw: the file of the results; ``out/raw.json`` if ``None``.
        watcher: told of every run and step.
        known: raw results of other studies: a run that is the same there is taken, not computed again.

    Raises:
        UserError: unknown network, data set or setting; unusable data; ``raw`` or ``known`` holds results of other
            settings.
        RunError: stopped by a signal, disk full, loss not finite. The same call goes on.
    """
    watcher = watcher or Nobody()
    study = find_study(settings.study)
    training = with_layout(settings.training, make_accelerator(settings.training).device)
    settings = settings.model_copy(update={"training": training})
    settings = settings.for_data(open_for(settings, settings.seeds[0]).train_size)
    data = open_for(settings, settings.seeds[0])
    folder = StudyFolder(Path(out), Raw(Path(raw) if raw else Path(out) / "raw.json", study.name), about(settings))
    wanted = _wanted(study, settings)
    plain = [arm_of(study, arm, settings) for arm in wanted if not arm.as_costly]
    _check_different(study, plain, settings)
    costs = check(plain, settings, data)
    if len(plain) < len(wanted):
        _check_width(plain, data)
    folder.create()
    with folder.alone():
        content = folder.raw.read()
        _check_facts(content, {**settings.facts(), **listing_of(data, settings)}, settings.defaults(), folder.raw.path)
        arms = _with_widths(study, wanted, plain, settings, data, content, watcher)
        _note_arms(content, arms, dict(zip([arm.slug for arm in plain], costs, strict=True)), settings, data)
        for path in known:
            take_known(content, Path(path), settings.seeds, settings.defaults())
        work = _measured(study, content, arms, settings, data, watcher)
        folder.raw.write(content)
    train_all(folder, arms, settings, work, watcher)
    ablation = summarise_study(study, folder.raw.read())
    with folder.alone():
        write_study(ablation, folder.path)
    return ablation


def _wanted(study: Study, settings: StudySettings) -> list[StudyArm]:
    """The arms that run, in the study's order."""
    if not settings.arms:
        return list(study.arms)
    slugs = set()
    for slug in settings.arms:
        arm = study.arm(slug)
        slugs |= {slug, arm.against, arm.like} - {""}
    return [arm for arm in study.arms if arm.slug in slugs]


def _check_different(study: Study, plain: list[Arm], settings: StudySettings) -> None:
    """Check that no argument overrides what tells two arms apart: they would be one network with two names."""
    if settings.network_args.get("static") and not any(arm.method for arm in study.arms):
        raise UserError(
            f"The study {study.name} varies what is dynamic in its network, and with --arg static=True nothing is. "
            "Leave that argument out."
        )
    for one, other in itertools.combinations(plain, 2):
        if one.same_as(other):
            given = " ".join(f"--arg {name}={value}" for name, value in settings.network_args.items())
            raise UserError(
                f"The arms {one.slug} and {other.slug} of the study {study.name} are one network with one training "
                f"here{f', by {given}' if given else ''}: there is nothing to compare. Leave out what makes them "
                "equal."
            )


def _check_width(plain: list[Arm], data: TaskData) -> None:
    """Check that the network has a width at all: timm's have it in their names alone."""
    static = plain[0].model
    try:
        data.network(at_width(static, width_of(static)))
    except UserError as error:
        raise UserError(
            f"This study widens {static.name}, which takes no width_multiplier; leave the wider networks out "
            f"(--arms {','.join(arm.slug for arm in plain)}), or choose a network that takes it: small_resnet, or one "
            "of `dynaconv list` with --arg static=True."
        ) from error


def _with_widths(
    study: Study,
    wanted: list[StudyArm],
    plain: list[Arm],
    settings: StudySettings,
    data: TaskData,
    content: dict[str, Any],
    watcher: Watcher,
) -> list[Arm]:
    """All arms; a widened one has the width that the raw file has, or else one that is found now."""
    by_slug = {arm.slug: arm for arm in plain}
    for arm in wanted:
        if not arm.as_costly:
            continue
        kept = content["arms"].get(arm.slug, {}).get("width")
        if kept is None:
            watcher.measuring(f"the width of {arm.label}")
            target = by_slug[arm.like].build(settings, data, settings.seeds[0])
            kept = asdict(_width(arm, by_slug[study.arms[0].slug].model, target, settings, data))
        spec = at_width(by_slug[study.arms[0].slug].model, kept["width_multiplier"])
        by_slug[arm.slug] = Arm(slug=arm.slug, label=arm.label, model=spec, training=fitting({}, settings))
        content["arms"].setdefault(arm.slug, {})["width"] = kept
    return [by_slug[arm.slug] for arm in wanted]


def _width(arm: StudyArm, static: ModelSpec, target: nn.Module, settings: StudySettings, data: TaskData) -> Width:
    memory = torch.channels_last if settings.training.channels_last else torch.contiguous_format
    device = make_accelerator(settings.training).device

    def build(width: float) -> nn.Module:
        return data.network(at_width(static, width)).to(device).to(memory_format=memory)

    if arm.as_costly == "parameters":
        return width_for_parameters(
            build, width_of(static), sum(parameter.numel() for parameter in target.parameters())
        )
    images = torch.randn(min(data.batch_size, data.train_size), 3, *height_and_width(data.image_size), device=device)
    images = images.contiguous(memory_format=memory)
    target, base = target.to(device).to(memory_format=memory), width_of(static)
    (served, _), frozen = as_served([target, build(base)], images)
    if not frozen:
        return width_for_time(build, base, target, images)
    return width_for_time(lambda width: freeze(build(width), examples=images), base, served, images)


def _note_arms(
    content: dict[str, Any],
    arms: list[Arm],
    costs: Mapping[str, Price],
    settings: StudySettings,
    data: TaskData,
) -> None:
    """Write down what every arm is; refuse one that is another one there.

    Raises:
        UserError: the raw file has results of an arm of that name with another network or training.
    """
    for arm in arms:
        cost = costs.get(arm.slug) or check([arm], settings, data)[0]
        note = {
            "label": arm.label,
            "model": arm.model.model_dump(mode="json"),
            "training": dict(arm.training),
            "parameters": cost.parameters,
            "madds": cost.madds,
        }
        if arm.begins_from:
            first = arm.begins_from
            note["begins_from"] = {"model": first.model.model_dump(mode="json"), "training": dict(first.training)}
        note = json.loads(json.dumps(note))
        kept = content["arms"].get(arm.slug, {})
        for name, value in note.items():
            if name not in ("label", "parameters", "madds") and kept.get(name, value) != value:
                raise UserError(
                    f"The raw results have an arm {arm.slug} whose {name} is {kept[name]!r}; here it is {value!r}. "
                    "Repeat the settings that they were computed with, or choose another --raw and --out."
                )
        content["arms"][arm.slug] = {**kept, **note}


def _measured(
    study: Study, content: dict[str, Any], arms: list[Arm], settings: StudySettings, data: TaskData, watcher: Watcher
) -> dict[str, float]:
    """The work of a run of every arm, relative to the study's first; time and memory are measured once, and kept."""
    known = content["measured"]
    if any("frozen" not in known.get(arm.slug, {}) for arm in arms):  # 0.2 froze none
        first = arm_of(study, study.arms[0], settings)
        beside = [first, *(arm for arm in arms if arm.slug != first.slug)]
        networks = [arm.build(settings, data, settings.seeds[0]) for arm in beside]
        measured = measure(networks, data, settings.training, watcher.measuring)
        times = {arm.slug: asdict(one) for arm, one in zip(beside, measured, strict=True)}
        content["measured"] = {**known, **times}
    return {arm.slug: float(content["measured"][arm.slug]["step"]["ratio"]) for arm in arms}


def _check_facts(content: dict[str, Any], facts: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
    """Compare the settings with those of the results; an option that came later has its default there."""
    here = json.loads(json.dumps(facts))
    there = content["facts"]
    if not there:
        content["facts"] = here
        return
    there.update({name: value for name, value in defaults.items() if name not in there})
    wrong = differences(there, here)
    if wrong:
        raise UserError(
            f"{path} holds results with other settings: {shortened(wrong)}. Repeat their command to go on "
            "with them (arms and seeds may be added), or choose another --out and --raw."
        )
