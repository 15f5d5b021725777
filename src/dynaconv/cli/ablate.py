"""``dynaconv ablate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.experiments import loader_workers, one_process, seeds_of, words
from dynaconv.cli.options import Given, assignments, takes
from dynaconv.cli.terminal import prepare, sentences, table, width
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.analysis.study_result import Ablation
    from dynaconv.analysis.study_settings import StudySettings


@takes(
    sizes=options.SIZES,
    training=options.TRAINING,
    opening=options.DATA.only("workers", "bad_images", "data_root", "train_split", "eval_split", "download"),
)
def ablate(
    *,
    study: Annotated[str | None, Argument(help="A study by its name; --list describes them.")] = None,
    listed: Annotated[bool, Option("--list", help="List the studies, a line each.")] = False,
    data: Annotated[str | None, Option(help=options.DATA_NAMES)] = None,
    seeds: Annotated[str, Option(help="How many (0, 1, ...), or which, separated by commas: '3' or '7,8,9'.")] = "3",
    arms: Annotated[str | None, Option(help="Only these arms, by the names of --list --json; commas between.")] = None,
    model: Annotated[str | None, Option(help="Another network, by timm's name, in place of the study's.")] = None,
    width_: Annotated[
        float | None, Option("--width", help="Width multiplier of the network (of its narrowest arm).")
    ] = None,
    out: Annotated[
        Path | None,
        Option(help="Folder of the runs; processes may share it. Default: runs/ablate-..., after the settings."),
    ] = None,
    raw: Annotated[
        Path | None, Option(help="File of the raw results, which alone decides what is done. Default: OUT/raw.json.")
    ] = None,
    known: Annotated[
        list[Path] | None, Option(help="Raw results of other studies; runs that are the same are taken. Repeatable.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print ablate.json instead of the table.")] = False,
    crop_pct: Annotated[float | None, Option(help="Share of the picture that evaluation crops.")] = None,
    train_images: Annotated[int | None, Option(help="Train on that many images only, all classes alike.")] = None,
    arg: options.Arg = None,
    setting: options.Set = None,
    data_arg: options.DataArg = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    sizes: Given,
    training: Given,
    opening: Given,
) -> None:
    """Repeat an ablation of the papers at the size of a desk: the paper's table beside ours, with seeds and intervals.

    Stop it at any moment; the same command goes on. Start it several times with the same --out to share the work.
    """
    if listed:
        print(_listed(as_json))
        return
    if study is None:
        raise UserError("Which study? 'dynaconv ablate --list' describes them.")
    from dynaconv.analysis.ablation import ablate as run_study
    from dynaconv.analysis.studies import find_study
    from dynaconv.analysis.study_settings import StudySettings

    one_process("ablate")
    find_study(study)
    if data is None:
        raise UserError("Which data? Pass --data: 'digits', a folder of images, torch/NAME, hfds/NAME or wds/FOLDER.")
    if "data_root" in opening:
        opening["data_root"] = str(opening["data_root"])
    chosen = {"crop_pct": crop_pct, "train_images": train_images, "network": model, "width": width_}
    settings = StudySettings.of_study(
        study,
        {
            "data": data,
            "seeds": seeds_of(seeds),
            "arms": tuple(words(arms)) if arms else (),
            "network_args": assignments("--arg", arg),
            "data_args": assignments("--data-arg", data_arg),
            "workers": loader_workers(data),
            **{name: value for name, value in chosen.items() if value is not None},
            **sizes,
            **opening,
        },
        {**training, **assignments("--set", setting)},
    )
    prepare(threads)
    place = out or settings.default_folder()
    ablation = run_study(settings, place, raw, None if quiet else _watcher(settings, place), known or ())
    print(json.dumps(ablation.plain(), indent=2) if as_json else _text(ablation, place))


def _listed(as_json: bool) -> str:
    from dataclasses import asdict

    from dynaconv.analysis.studies import STUDIES

    if as_json:
        return json.dumps([asdict(study) for study in STUDIES.values()], indent=2, default=dict)
    columns = width()
    rows = [[study.name, str(len(study.arms)), study.source or "ours", study.title] for study in STUDIES.values()]
    return table(["study", "arms", "of", "what"], rows, right=(1,), columns=columns)


def _text(ablation: Ablation, place: Path) -> str:
    from dynaconv.analysis.study_report import cells, headings, notes, sentence

    columns = width()
    names = headings(ablation)
    rows = [cells(ablation, row) for row in ablation.rows]
    lines = [table(names, rows, right=(1, 2, 3, 4, 5, 6, 8, 9), columns=columns)]
    further = [sentences(sentence(ablation, pair), columns) for pair in ablation.further]
    told = [sentences(note, columns) for note in notes(ablation)]
    return "\n".join([*lines, *([""] if further else []), *further, "", *told, "", f"{place}/ablate.json, .csv, .md"])


def _watcher(settings: StudySettings, place: Path) -> Any:
    from dynaconv.cli.compare_bar import CompareBar

    return CompareBar(settings.metric, place)
