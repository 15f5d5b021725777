"""Files that one command writes and another reads: exported networks, raw results, recordings, kernels of a wheel.

And what a user writes for a command: names of classes, the function that builds a network.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import dynaconv
from dynaconv.analysis.raw import Raw
from dynaconv.cli.export import read_classes
from dynaconv.export import load, onnx_file, torch_file
from dynaconv.export.seal import seal
from dynaconv.export.source import open_source
from dynaconv.files import sha256_of
from dynaconv.inspection import read_routing
from dynaconv.kernels.cpu import built
from dynaconv.serve.batching import Job
from dynaconv.serve.loading import load_served
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.tasks.weights import read_any_weights
from faults import worlds
from faults.damages import CONTENT, PLACE
from faults.kinds import ARCHIVE, JSON, WEIGHTS, Kind, Tree
from inspection.nets import Net, images

ABOUT = {
    **{"format": "onnx", "task": "classification", "classes": ["cat", "dog", "emu"], "input": "normalised"},
    **{"preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "image_size": 16, "crop_pct": 0.9}},
    **{"input_size": [3, 16, 16], "batch": None, "free_size": False, "outputs": ["logits"], "name": "tiny"},
}
STUDY = "sigmoid"


@worlds.once
def exported(root: Path) -> None:
    """A classifier in ONNX and as a program of torch, as ``dynaconv export`` writes them."""
    random = np.random.default_rng(0)
    batch = ["batch", 3, 16, 16]
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
    ]
    weight = numpy_helper.from_array(random.normal(size=(3, 3)).astype(np.float32), "weight")
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, batch)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx_file.write(model, root / "x.onnx", ABOUT)
    seal(root / "x.onnx")
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)).eval()
    program = torch.export.export(network, (torch.zeros(2, 3, 16, 16),))
    text = json.dumps({**ABOUT, "format": "torch-export", "batch": 2})
    torch.export.save(program, root / "x.pt2", extra_files={torch_file.EXTRA: text})
    seal(root / "x.pt2")


def served(root: Path) -> Any:
    """What the service predicts, with the names of the classes."""
    network = load_served(root / "x.onnx")
    picture = Image.fromarray(np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3))
    [found] = network.run([Job(network.example(picture))])
    return found.predictions


def run_program(root: Path) -> Any:
    program = load(root / "x.pt2")
    return {**program.about, **program.run(torch.linspace(0, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16))}


def _read_about(path: Path) -> Any:
    return json.loads({entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}["dynaconv"])


def _write_about(path: Path, tree: Any) -> None:
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx_file.write(model, path, tree)
    seal(path)


@worlds.once
def classes(root: Path) -> None:
    """Names of classes, as ``--classes`` reads them."""
    (root / "names.txt").write_text("cat\ndog\nemu\n")
    (root / "names.json").write_text('["cat", "dog", "emu"]')


@worlds.once
def raw(root: Path) -> None:
    """The raw results of a study with two arms and two seeds."""
    one = {"method": "dynamic", "experts": 4, "seed": 0, "top1": 50.0, "curve": [[1, 50.0]], "train_loss": [1.5]}
    one |= {"seconds_per_image": 0.001, "dropped_steps": 0, "temperature": 1.0, "routing_entropy": 0.9}
    one |= {"correct": "f0", "test_images": 8, "metric": "top1", "metrics": {"top1": 0.5}, "about": {"torch": "2"}}
    arms = ("softmax", "sigmoid")
    content = {"format": 1, "study": STUDY, "facts": {"data": "digits", "epochs": 2}}
    content["arms"] = {arm: {"label": arm, "parameters": 100, "madds": 1e6} for arm in arms}
    content["measured"] = {arm: {"step": {"ratio": 1.5}} for arm in arms}
    content["results"] = {arm: {str(seed): {**one, "seed": seed} for seed in (0, 1)} for arm in arms}
    Raw(root / "raw.json", STUDY).write(content)


def results(root: Path) -> Any:
    """All parts by name; those that are gone are computed again, which gives what was there."""
    whole = worlds.home() / "raw" / "raw.json"
    return {**_parts(whole), **_parts(root / "raw.json")}


def _parts(path: Path) -> dict[str, Any]:
    content = Raw(path, STUDY).read()
    found = {f"{part}/{arm}": content[part][arm] for part in ("arms", "measured") for arm in content[part]}
    runs = {(arm, seed): one for arm, by_seed in content["results"].items() for seed, one in by_seed.items()}
    known = ("softmax", "sigmoid")  # others are of no arm
    found |= {f"results/{arm}/{seed}": runs[arm, seed] for arm, seed in runs if arm in known and seed in "01"}
    kept = {name: value for name, value in found.items() if name.split("/")[1] in known}
    return {**({"facts": content["facts"]} if path.exists() else {}), **kept}


@worlds.once
def recording(root: Path) -> None:
    """Routing weights of four images."""
    torch.manual_seed(0)
    network = Net()
    with dynaconv.record_routing(network, root / "routing.parquet") as recorder, torch.no_grad():
        network(images(4))
        recorder.note(label=["cat", "dog", "cat", "emu"])


def recorded(root: Path) -> Any:
    routers, groups = read_routing(root / "routing.parquet")
    return [
        routers,
        *({**rows.columns, **{name: one.tolist() for name, one in rows.weights.items()}} for rows in groups),
    ]


@worlds.once
def wheel(root: Path) -> None:
    """The kernels' folder of a wheel."""
    folder = root / "built"
    folder.mkdir()
    libraries = {name: b"\x7fELF " + name.encode() * 100 for name in built.TARGETS}
    for name, content in libraries.items():
        (folder / f"{name}.so").write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in libraries.items()}
    (folder / "built.json").write_text(json.dumps({"sources": built.checksum_of_sources(), "libraries": sums}))


def found_kernels(root: Path) -> Any:
    """The checksum of the library that would be loaded; where there is none, as good ones are compiled."""
    whole = hashlib.sha256(b"\x7fELF " + b"x86_64-avx2" * 100).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "FOLDER", root / "built")
        path = built.find("x86_64", built.TARGETS["x86_64-avx2"][1])
    return whole if path is None else sha256_of(path)


@worlds.once
def function(root: Path) -> None:
    """A network of the user's own."""
    (root / "net.py").write_text(
        "from torch import nn\n\n\n"
        "def make(classes=3):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))\n"
    )


def built_network(root: Path) -> Any:
    network = build_model(ModelSpec(name=f"{root / 'net.py'}:make"), None, whole=True)
    return [type(part).__name__ for part in network.children()]


def to_export(root: Path) -> Any:
    source = open_source(root / "w.safetensors")
    with torch.no_grad():
        return [source.network(torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)), source.classes]


@worlds.once
def local_weights(root: Path) -> None:
    """Weights that another program pickled, as ``--weights`` reads them."""
    torch.manual_seed(0)
    torch.save({"state_dict": nn.Linear(4, 3).state_dict(), "epoch": 3}, root / "w.pth")


PYTHON = ("cut", "empty", "foreign", "sector", *PLACE)  # no flips: what they make of a program is run

PRODUCTS: dict[str, Kind] = {
    "x.onnx": Kind("x.onnx", exported, served, Tree(_read_about, _write_about), checked=True),
    "x.pt2": Kind("x.pt2", exported, run_program, checked=True, share=0.5),
    "names.txt": Kind("names.txt", classes, lambda root: read_classes(root / "names.txt"), share=0.5),
    "names.json": Kind("names.json", classes, lambda root: read_classes(root / "names.json"), JSON, share=0.5),
    "raw.json": Kind("raw.json", raw, results, JSON, checked=True, damages=(*CONTENT, *PLACE)),
    "routing.parquet": Kind("routing.parquet", recording, recorded, checked=True),
    "built.json": Kind("built/built.json", wheel, found_kernels, JSON, checked=True, share=0.5),
    "built library": Kind("built/x86_64-avx2.so", wheel, found_kernels, checked=True, share=0.5),
    "net.py": Kind("net.py", function, built_network, damages=PYTHON, share=0.3),
    "w.pth": Kind(
        "w.pth",
        local_weights,
        lambda root: read_any_weights(root / "w.pth"),
        Tree(lambda path: torch.load(path, weights_only=True), lambda path, tree: torch.save(tree, path)),
        share=0.5,
    ),
    "archive as weights": Kind(
        "network.safetensors",
        worlds.archive,
        lambda root: read_any_weights(root / "network.safetensors"),
        ARCHIVE,
        checked=True,
        share=0.5,
    ),
    "weights to export": Kind("w.safetensors", worlds.weights, to_export, WEIGHTS, checked=True, share=0.3),
}
