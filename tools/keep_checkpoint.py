"""From the last weights of a run to a checkpoint that is kept in the project.

    python tools/keep_checkpoint.py RUN checkpoints/NAME.safetensors --data cifar10

writes what ``train`` wrote (so every command takes it), with the data set's name in the place of its path, and with the
recipe, in a file that holds nothing of the machine; then renews checkpoints/SHA256SUMS and the table of
checkpoints/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dynaconv.train.run_folder.weights import LAST, load_trained, save_weights

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
RECIPE = ("epochs", "batch_size", "opt", "lr", "weight_decay", "sched", "seed")
OF_DYNAMIC = ("temperature_start", "temperature_end", "temperature_epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("to", type=Path, help="the file to write")
    parser.add_argument("--data", required=True, help="name of the data set")
    asked = parser.parse_args()
    trained = load_trained(asked.run / LAST)
    run: dict[str, Any] = json.loads((asked.run / "run.json").read_text())
    settings = {"batch_size": run["batch_size"], **run["recipe"]["settings"]}
    names = (*RECIPE, *OF_DYNAMIC) if trained.about["model"]["method"] else RECIPE
    about = {
        **trained.about,
        "data": asked.data,
        "recipe": {name: settings[name] for name in names},
        "train_images": run["train_size"],
        "eval_images": run["eval_size"],
        "versions": run["versions"],
    }
    save_weights(asked.to, trained.model, about)
    renew(FOLDER)


def renew(folder: Path) -> None:
    """Write the checksums and the table anew from the files."""
    files = sorted(folder.glob("*.safetensors"))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    page = folder / "README.md"
    begin, end = "<!-- begin table -->", "<!-- end table -->"
    made = f"{begin}\n{table(files)}\n{end}"
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: made, page.read_text(), flags=re.DOTALL))


def table(files: list[Path]) -> str:
    """A row for every file, from the file alone."""
    lines = [
        "| file | network | method | parameters | bytes | top-1, % | top-5, % |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for file in files:
        trained = load_trained(file)
        model, metrics = trained.about["model"], trained.about["metrics"]
        method = f"{model['method']}, K={model['experts']}" if model["method"] else "static"
        cells = [
            f"`{file.name}`",
            model["name"],
            method,
            f"{sum(tensor.numel() for tensor in trained.model.parameters()):,}",
            f"{file.stat().st_size:,}",
            f"{100 * metrics['top1']:.2f}",
            f"{100 * metrics['top5']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
