"""From the folder of a finished ``dynaconv compare`` to what docs/detection-keypoints.md shows of it.

    python tools/task_evidence.py runs/compare-... NAME --pictures 3

writes docs/evidence/NAME.json (compare.json, every run's result, and the metrics of the same networks before their
training) and docs/NAME.png: pictures of the evaluation split, what is annotated, and what the static network and its
dynamic twin of the first seed find.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from dynaconv.analysis import CompareSettings
from dynaconv.analysis.arms import Arm, compared_arms, label_of
from dynaconv.analysis.runs import open_for
from dynaconv.analysis.statistics import difference_of, mean, spread
from dynaconv.data import BadImages
from dynaconv.data.coco_splits import open_coco_part
from dynaconv.figures import short_number
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.evaluation import evaluate
from dynaconv.train.run_folder.weights import LAST, load_trained
from dynaconv.train.settings import settings_class

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 320  # of one picture on the sheet
MARGIN = 1.4  # of the boxes' sides round what is drawn, where a picture has one small object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--min-score", type=float)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    plain = json.loads((chosen.folder / "compare.json").read_text())
    settings = settings_of(plain)
    arms = compared_arms(settings)
    evidence = {
        "compare": plain,
        "runs": [read_result(chosen.folder, arm, seed) for seed in settings.seeds for arm in arms],
        "untrained": [
            {"method": arm.method, "experts": arm.experts, "seed": seed, **untrained(arm, settings, seed)}
            for seed in settings.seeds
            for arm in arms
        ],
    }
    (DOCS / "evidence").mkdir(exist_ok=True)
    text = json.dumps(evidence, indent=1).replace(f"{Path(settings.data).parent}/", "")  # where the data lay
    (DOCS / "evidence" / f"{chosen.name}.json").write_text(text + "\n")
    print("\n".join(page_table(evidence)))
    folders = [chosen.folder / "runs" / f"{arm.slug}-seed{settings.seeds[0]}" for arm in arms]
    sheet = draw(settings, folders, [arm.label for arm in arms], chosen.pictures, chosen.min_score)
    sheet.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        DOCS / f"{chosen.name}.png", optimize=True
    )


def settings_of(plain: dict[str, Any]) -> CompareSettings:
    """The settings that ``compare.json`` holds."""
    chosen = {name: value for name, value in plain["settings"].items() if name != "augment"}
    chosen["training"] = settings_class(chosen["task"]).of(chosen["training"])
    return CompareSettings.of(chosen)


def read_result(folder: Path, arm: Arm, seed: int) -> dict[str, Any]:
    """One run's own record, and the seconds that training and evaluation took."""
    run = folder / "runs" / f"{arm.slug}-seed{seed}"
    epochs = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    seconds = sum(float(epoch["train_seconds"]) + float(epoch["eval_seconds"]) for epoch in epochs)
    return {**json.loads((run / "result.json").read_text()), "seconds": seconds}


def page_table(evidence: dict[str, Any]) -> list[str]:
    """The lines of the page's table, computed from the runs."""
    lines = [
        "| network | parameters | MAdds | AP, % | AP50, % | difference in AP [95 %] | untrained AP, % | minutes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = evidence["compare"]["rows"]
    by_method = {row["method"]: [run for run in evidence["runs"] if run["method"] == row["method"]] for row in rows}
    static = [run["ap"] for run in by_method["static"]]
    for row in rows:
        runs = by_method[row["method"]]
        ap = [run["ap"] for run in runs]
        difference = ""
        if row["method"] != "static":
            found = difference_of(ap, static)
            few = found.low is None or found.high is None
            difference = f"{found.mean:+.1f} [" + ("one seed]" if few else f"{found.low:+.1f}, {found.high:+.1f}]")
        before = [100 * one["ap"] for one in evidence["untrained"] if one["method"] == row["method"]]
        cells = [
            label_of(row["method"], row["experts"]),
            short_number(row["parameters"]),
            short_number(row["madds"]),
            f"{mean(ap):.1f}" + ("" if len(ap) < 2 else f" ± {spread(ap):.1f}"),
            f"{100 * mean([run['metrics']['ap50'] for run in runs]):.1f}",
            difference,
            f"{mean(before):.1f}",
            f"{mean([run['seconds'] for run in runs]) / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def untrained(arm: Arm, settings: CompareSettings, seed: int) -> dict[str, float]:
    """The metrics of a network before its first step."""
    data = open_for(settings, seed)
    accelerator = make_accelerator(settings.training)
    batches = data.evaluation_batches(device=accelerator.device)
    task = data.task(settings.training, data.batch_size)
    metrics = evaluate(arm.build(settings, data, seed), batches, task, accelerator)
    batches.close()
    return metrics


def draw(
    settings: CompareSettings, folders: list[Path], labels: list[str], count: int, least: float | None
) -> Image.Image:
    """A row for every picture; columns: annotated, then every network."""
    poses = settings.task == "keypoints"
    coco = open_coco_part(settings.data, keypoints=poses, split="val")
    step = len(coco.pictures) // count
    pictures = coco.pictures[step // 2 :: step][:count]
    networks = [load_trained(folder / LAST) for folder in folders]
    task: Any = networks[0].task
    rows = []
    for picture in pictures:
        image = picture.decode()
        truth = [as_prediction(one, task, poses) for one in picture.annotations]
        found = [truth, *(predict(network, picture, settings.task, least) for network in networks)]
        drawn = [task.draw(image, each) for each in found]
        rows.append([cut(one, picture) if poses else one for one in drawn])
    return sheet(rows, ["annotated", *labels])


def as_prediction(one: Any, task: Any, poses: bool) -> dict[str, Any]:
    """An annotation in the form of a prediction."""
    if not poses:
        return {"class": task.classes[one.label], "score": 1.0, "box": list(one.box)}
    places = zip(task.pose.names, one.keypoints.tolist(), strict=True)
    return {
        "box": list(one.box),
        "score": 1.0,
        "keypoints": [{"name": name, "x": x, "y": y, "score": float(seen > 0)} for name, (x, y, seen) in places],
    }


def predict(network: Any, picture: Any, task: str, least: float | None) -> list[Any]:
    """What one network finds in one picture; poses in its annotated boxes."""
    opening: dict[str, Any] = {"batch_size": 8, "workers": 0, "bad_images": BadImages("error", 0), "device": "cpu"}
    options: dict[str, Any] = {} if least is None else {"min_score": least}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        if task == "keypoints":
            corners = [one.box for one in picture.annotations]
            records = [
                {"file_name": picture.path.name, "bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in corners
            ]
            opening["boxes"] = Path(folder) / "boxes.json"
            opening["boxes"].write_text(json.dumps(records))
        found: list[Any] = []
        for _, batch in network.task.file_batches([picture.path], **opening):
            for each in network.task.predict(network.model, batch, **options):
                found += each
    return found


def cut(image: Image.Image, picture: Any) -> Image.Image:
    """The part round the first box, as a square."""
    x1, y1, x2, y2 = picture.annotations[0].box
    half = MARGIN * max(x2 - x1, y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))


def sheet(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Pictures in a grid of equal width, with titles above the columns."""
    height = round(WIDTH * rows[0][0].height / rows[0][0].width)
    font = ImageFont.load_default(16)
    whole = Image.new("RGB", (len(titles) * (WIDTH + 6), 26 + len(rows) * (height + 6)), "white")
    pencil = ImageDraw.Draw(whole)
    for column, title in enumerate(titles):
        pencil.text((column * (WIDTH + 6) + 2, 3), title, fill="black", font=font)
        for line, row in enumerate(rows):
            small = row[column].resize((WIDTH, height), Image.Resampling.LANCZOS)
            whole.paste(small, (column * (WIDTH + 6), 26 + line * (height + 6)))
    return whole


if __name__ == "__main__":
    main()
