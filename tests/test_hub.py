"""A converted network's life: saved and described as a folder, loaded again, pushed to the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from torch import nn

import dynaconv
from dynaconv import hub
from dynaconv.errors import UserError

FILE = """
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3, bias=False),
                         nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
"""


def outputs(network: nn.Module, side: int = 64) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side))


def of_timm() -> tuple[nn.Module, Any]:
    return timm.create_model("test_resnet", num_classes=5), None


def of_torchvision() -> tuple[nn.Module, Any]:
    from torchvision.models import shufflenet_v2_x0_5

    return shufflenet_v2_x0_5(num_classes=5), "torchvision.models:shufflenet_v2_x0_5"


def of_ones_own() -> tuple[nn.Module, Any]:
    Path("own_of_tests.py").write_text(FILE)
    from dynaconv.inference.functions import find_function

    return find_function("own_of_tests.py:build")(), "own_of_tests.py:build"


@pytest.mark.parametrize("source", [of_timm, of_torchvision, of_ones_own])
@pytest.mark.parametrize("frozen", [False, True], ids=["dynamic", "frozen"])
def test_there_and_back(
    source: Callable[[], tuple[nn.Module, Any]], frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    static, factory = source()
    twin = dynaconv.dynamize(static, method="condconv", experts=3, input_size=(3, 64, 64)).eval()
    if frozen:
        twin = dynaconv.freeze(twin, input_size=(3, 64, 64))
    arguments = {"num_classes": 5} if source is of_torchvision else None
    folder = hub.save_pretrained(twin, tmp_path / "deep" / "folder", factory=factory, arguments=arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = hub.from_pretrained(str(folder), factory=factory if source is of_ones_own else None)
    assert torch.equal(outputs(again), outputs(twin))
    assert not again.training
    config = json.loads((folder / "config.json").read_text())
    assert (config["experts"], config["frozen"]) == ([3], frozen)
    if source is of_ones_own:
        with pytest.raises(UserError, match="a file does not decide what code runs"):
            hub.from_pretrained(folder)


def test_card(tmp_path: Path) -> None:
    twin = dynaconv.dynamize(timm.create_model("test_resnet"), experts=2)
    folder = hub.save_pretrained(twin, tmp_path, notes="Trained on <nothing>.", input_size=(3, 32, 32))
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "dynaconv"
    assert card.data.license is None, "the licence is left to the user"
    assert {"dynamic-convolution", "pytorch"} <= set(card.data.tags)
    layers = len(twin.dynamize_report.replaced)
    mixing = dynaconv.cost(twin, (3, 32, 32)).mixing
    for words in (
        "timm's `test_resnet`",
        f"{layers} layers are dynamic",
        "K = 2 experts",
        f"Routers: {layers} SoftmaxRouter",
        "One example of 3x32x32 costs",
        "mix the experts",
        "Trained on <nothing>.",
        "dynaconv.hub.from_pretrained('<this folder or repository>')",
    ):
        assert words in card.text
    assert mixing > 0
    hub.save_pretrained(twin, tmp_path, licence="mit")
    assert ModelCard.load(tmp_path / "README.md").data.license == "mit"
    with pytest.raises(UserError, match=r"The cost at input_size=\(7, 9, 9\) cannot be counted"):
        hub.save_pretrained(twin, tmp_path, input_size=(7, 9, 9))


def test_pushed_as_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Api:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
            seen.update(repository=repository, private=private, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
            seen["network"] = hub.from_pretrained(folder_path)
            seen["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    twin = dynaconv.dynamize(timm.create_model("test_resnet"), experts=2)
    assert hub.push_to_hub(twin, "somebody/twin", private=True, notes="x") == "https://hub/somebody/twin"
    assert (seen["repository"], seen["private"], seen["exist_ok"]) == ("somebody/twin", True, True)
    assert seen["files"] == ["README.md", "config.json", "model.safetensors"]
    assert torch.equal(outputs(seen["network"]), outputs(twin))


def test_without_a_network_and_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot fetch somebody/twin from the hub: .* give the path of a folder"):
        hub.from_pretrained("somebody/twin")
    with pytest.raises(UserError, match=r"Cannot write somebody/twin on the hub"):
        hub.push_to_hub(timm.create_model("test_resnet"), "somebody/twin")
    for name in ("twin", "a/b/c", "./twin", "somebody/"):
        with pytest.raises(UserError, match=r"is neither a folder nor a repository 'owner/name'"):
            hub.from_pretrained(name)
    with pytest.raises(UserError, match=r"There is no model.safetensors in"):
        hub.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"it is not known how Linear is built: give factory="):
        hub.save_pretrained(nn.Sequential(nn.Linear(1, 1))[0], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        hub.save_pretrained(timm.create_model("test_resnet"), tmp_path / "file" / "folder")


def test_a_folder_of_the_zoo_is_named(tmp_path: Path) -> None:
    from dynaconv.models import save_pretrained

    save_pretrained(timm.create_model("condconv_mobilenetv1_025", num_classes=2), tmp_path)
    with pytest.raises(UserError, match=r"is loaded by dynaconv.models.load_pretrained"):
        hub.from_pretrained(tmp_path)
