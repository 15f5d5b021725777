"""From a name to a network: functions, torchvision, saved networks and local weights, for every command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.errors import UserError
from dynaconv.layers import DynamicLayer
from dynaconv.tasks.network import ModelSpec, build_model, changed_file, file_of, trusted
from dynaconv.tasks.sources import digest_of, make_network, number_of_outputs
from dynaconv.tasks.weights import load_weights_into, read_any_weights, save_weights

FILE = """
import torch
from torch import nn

class Net(nn.Sequential):
    pass

def build(num_classes=10, width=4):
    return Net(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width),
               nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

def seven():
    return build(7)

def trained():
    network = build()
    torch.nn.init.constant_(network[0].weight, 0.25)
    torch.nn.init.constant_(network[2].weight, 0.5)
    torch.nn.init.constant_(network[6].weight, 0.5)
    return network

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

def pair():
    return Pair(*build())

def maps():
    return nn.Conv2d(3, 10, 1)

def for_grey():
    return nn.Conv2d(1, 10, 1)
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "net_of_tests.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "net_of_tests.py"


def spec(name: str, **options: Any) -> ModelSpec:
    return ModelSpec(name=name, **options)


def build(name: str, classes: int | None = 10, **options: Any) -> nn.Module:
    spec_options = {key: options.pop(key) for key in ("method", "experts", "args", "dropout") if key in options}
    return build_model(spec(name, **spec_options), classes, image_size=16, **options)


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16))


def test_a_function_gets_the_classes_and_its_twin_new_experts(file: str) -> None:
    assert logits(build(f"{file}:build", 5, args={"width": 6})).shape == (2, 5)
    twin = build(f"{file}:build", method="dynamic", experts=2)
    bank = twin[2].weight
    assert isinstance(twin[2], DynamicLayer)
    assert (bank[0] - bank[1]).abs().mean() > 0.5 * bank[0].abs().mean(), "drawn anew, as the papers train"


def test_a_function_that_returns_trained_weights_gives_copies_with_noise(file: str) -> None:
    bank = build(f"{file}:trained", method="dynamic", experts=3)[2].weight
    assert torch.allclose(bank.mean(0), torch.full_like(bank[0], 0.5), atol=1e-6)
    assert not torch.equal(bank[0], bank[1]), "equal experts would stay equal"


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("seven", {}, r"has 7 outputs, and there are 10 classes; give the function an argument num_classes"),
        ("pair", {}, r"returns a tuple for two pictures; expected logits of \(2, classes\)"),
        ("maps", {}, r"returns a tensor of 2x10x16x16 for two pictures"),
        ("for_grey", {}, r"does not run on pictures of 3x16x16"),
        ("build", {"dropout": 0.1}, r"takes no drop_rate, so --dropout is not for it"),
        ("build", {"pretrained": True}, r"takes no argument 'pretrained'"),
        ("build", {"args": {"widht": 3}}, r"Did you mean 'width'"),
    ],
)
def test_functions_that_do_not_fit(file: str, function: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(f"{file}:{function}", **options)


def test_torchvision() -> None:
    network = build("torchvision/shufflenet_v2_x0_5", 5)
    assert logits(network).shape == (2, 5)
    assert network.__dict__["dynaconv_origin"].kind == "torchvision"
    with pytest.raises(UserError, match=r"Did you mean 'shufflenet_v2_x0_5'"):
        build("torchvision/shufflenet_v2_x0_55")
    with pytest.raises(UserError, match=r"--dropout and --drop-path are for timm's networks"):
        build("torchvision/shufflenet_v2_x0_5", dropout=0.1)
    with pytest.raises(UserError, match=r"torchvision has it: torchvision/shufflenet_v2_x0_5."):
        build("shufflenet_v2_x0_5")


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    def none(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights, "get_state_dict", none)
    with pytest.raises(UserError, match=r"cannot be had: OSError: no route to host. Without a network .* --weights"):
        build("torchvision/shufflenet_v2_x0_5", pretrained=True)


def test_a_saved_network_is_a_name(file: str, tmp_path: Path) -> None:
    twin = dynaconv.dynamize(make_network("test_resnet", {"num_classes": 10}), experts=2)
    dynaconv.save(twin, "twin.safetensors")
    assert torch.equal(logits(build("twin.safetensors")), logits(twin))
    assert build("twin.safetensors").training
    assert logits(build("twin.safetensors", 4)).shape == (2, 4), "another head, as timm's reset_classifier makes it"
    with pytest.raises(UserError, match=r"is a saved network, built already; --arg experts"):
        build("twin.safetensors", args={"experts": 3})


def test_a_saved_network_of_ones_own_needs_its_function(file: str) -> None:
    static = build(f"{file}:build")
    twin = dynaconv.dynamize(static, experts=2)
    dynaconv.save(twin, "own.safetensors", factory=f"{file}:build")
    with pytest.raises(UserError, match=r"a file does not decide what code runs"):
        build("own.safetensors")
    again = build(f"{file}:build", weights=Path("own.safetensors"))
    assert torch.equal(logits(again), logits(twin))


def test_a_run_is_a_name(file: str) -> None:
    network = build("test_resnet", 10)
    about = {"model": spec("test_resnet").model_dump(mode="json"), "classes": [str(n) for n in range(10)]}
    Path("run").mkdir()
    save_weights(Path("run/best.safetensors"), network, about)
    assert torch.equal(logits(build("run")), logits(network))
    assert torch.equal(logits(build("run/best.safetensors")), logits(network))
    other = build("run", 3)  # for other classes
    assert torch.equal(other.conv1[0].weight, network.conv1[0].weight)
    save_weights(Path("alone.safetensors"), network, {})
    with pytest.raises(UserError, match=r"holds weights alone.*--weights alone.safetensors"):
        build("alone.safetensors")
    with pytest.raises(UserError, match=r"no such file or folder"):
        build("runs/none")


def test_a_runs_function_is_not_run_unless_it_is_named(file: str) -> None:
    about = {"model": spec(f"{file}:build").model_dump(mode="json"), "classes": [str(n) for n in range(10)]}
    save_weights(Path("w.safetensors"), build(f"{file}:build"), about)
    Path(file).write_text("raise SystemExit('this code was run')\n")
    with pytest.raises(UserError, match=r"a file does not decide what code runs: .*--model net_of_tests.py:build"):
        build("w.safetensors")
    with pytest.raises(UserError, match=r"belongs to a network that the function"):
        trusted(spec("evil:build"), None, Path("w"))
    assert trusted(spec("evil:build"), "mine.py:build", Path("w")).name == "mine.py:build"
    assert trusted(spec("resnet18"), None, Path("w")).name == "resnet18"


def test_a_changed_file_is_said(file: str, caplog: pytest.LogCaptureFixture) -> None:
    before = file_of(spec(f"{file}:build"))
    assert before == {"name": f"{file}:build", "sha256": digest_of(f"{file}:build")}
    assert file_of(spec("resnet18")) is None
    changed_file(spec(f"{file}:build"), before, "before")
    assert not caplog.records
    Path(file).write_text(FILE + "\n")
    changed_file(spec(f"{file}:build"), before, "before")
    assert "is not the one before" in caplog.text


@pytest.mark.parametrize("ending", ["safetensors", "pth", "wrapped.pth", "parallel.pth"])
def test_weights_of_the_static_network_become_experts(file: str, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    static = build(f"{file}:build")
    nn.init.uniform_(static[3].running_mean)
    path, state = Path(f"weights.{ending}"), static.state_dict()
    if ending == "safetensors":
        save_weights(path, static, {})
    elif ending == "parallel.pth":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if "wrapped" in ending else state, path)
    assert torch.equal(logits(build(f"{file}:build", weights=path)), logits(static))
    twin = build(f"{file}:build", method="dynamic", experts=4, weights=path)
    assert torch.allclose(twin[2].weight.mean(0), static[2].weight, atol=1e-6)
    assert torch.equal(twin[3].running_mean, static[3].running_mean)
    assert torch.equal(twin[6].weight, static[6].weight)


def test_weights_with_another_head(file: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(build(f"{file}:seven", 7).state_dict(), "seven.pth")
    with caplog.at_level(logging.INFO):
        network = build(f"{file}:build", weights=Path("seven.pth"))
    assert "the head is left as initialised: 6.weight is (7, 4) there and (10, 4) here" in caplog.text
    assert torch.equal(network[0].weight, torch.load("seven.pth", weights_only=True)["0.weight"])
    with pytest.raises(UserError, match=r"6.weight is \(7, 4\) there.*for as many classes"):
        build(f"{file}:build", weights=Path("seven.pth"), whole=True)


class Code:
    def __reduce__(self) -> Any:
        return print, ("this code was run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2)}, r"another network than this Net: 0 of its 1 tensors fit; 0.weight is not there"),
        ({"model": Code()}, r"holds more than tensors, which could run code when it is read, and is not read"),
        ([1, 2], r"holds a list; expected a state dict"),
        ({"epoch": 3}, r"holds no tensors"),
        (None, r"is damaged, or no file of torch.save"),
    ],
)
def test_weights_that_cannot_be_used(file: str, content: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, "w.pth")
    if content is None:
        Path("w.pth").write_bytes(b"PK\x03\x04 nothing")
    network = build(f"{file}:build")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights_into(network, Path("w.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert "this code was run" not in capsys.readouterr().out


def test_weights_that_are_not_there(file: str) -> None:
    torch.save({"a": torch.zeros(1)}, "weights.pth")
    with pytest.raises(UserError, match=r"There are no weights at weigths.pth. Did you mean 'weights.pth'"):
        read_any_weights(Path("weigths.pth"))
    with pytest.raises(UserError, match=r"There is no folder none"):
        read_any_weights(Path("none/weights.pth"))
    with pytest.raises(UserError, match=r"--pretrained and --weights weights.pth are two beginnings"):
        build("test_resnet", pretrained=True, weights=Path("weights.pth"))


def test_weights_of_timm_with_another_head_into_a_twin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    static = make_network("test_efficientnet", {"num_classes": 7})
    save_weights(tmp_path / "w.safetensors", static, {})
    twin = build("test_efficientnet", method="condconv", experts=2, weights=tmp_path / "w.safetensors")
    assert "the head is left as initialised: classifier.weight is (7, 256) there and (10, 256) here" in caplog.text
    name = next(name for name, module in twin.named_modules() if isinstance(module, DynamicLayer))
    assert torch.allclose(
        twin.get_parameter(f"{name}.weight").mean(0), static.get_parameter(f"{name}.weight"), atol=1e-6
    )
    assert number_of_outputs(static, (16, 16), "x") == 7


@pytest.mark.parametrize(("router", "hidden", "widths"), [
    (None, None, {2, 4}), (None, 8, {8}), (None, 0, set()), ("sigmoid", 3, {3}), ("sigmoid", 0, set())
])  # fmt: skip
def test_the_width_of_the_routers_hidden_layer(router: Any, hidden: int | None, widths: set[int]) -> None:
    args = {"width_multiplier": 0.5, "blocks": [1, 1]}
    spec = ModelSpec(name="small_resnet", method="dynamic", router=router, hidden=hidden, args=args)
    assert ModelSpec(**spec.model_dump()) == spec
    assert ("hidden" in spec.model_dump()) == (hidden is not None)  # as in specs of before there was one
    network = build_model(spec, 10, image_size=16)
    made = [module for name, module in network.named_modules() if name.endswith("router.hidden")]
    assert {
        layer.out_features for layer in made if isinstance(layer, nn.Linear)
    } == widths  # layers of 8 and 16 channels
    with pytest.raises(ValueError, match="router and hidden are for dynamic layers"):
        ModelSpec(name="small_resnet", hidden=8)
