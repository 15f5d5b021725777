"""Networks in folders, and what happens without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dynaconv.errors import UserError
from dynaconv.models import load_pretrained, load_weights, push_to_hub, save_pretrained
from models.nets import images, make

NAME = "condconv_mobilenetv1_025"
KIND: dict[str, Any] = {"routing": "hierarchical", "convs": ("C1", "C3"), "bn_eps": 1e-3, "experts": 3}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, Path]:
    network = make(NAME, **KIND)
    return network, save_pretrained(network, tmp_path / "deep" / "folder", notes="Trained on nothing.")


def test_there_and_back(saved: tuple[nn.Module, Path]) -> None:
    network, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    x = images(2)
    with torch.no_grad():
        assert torch.equal(load_pretrained(folder)(x), network(x))
        timms = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.equal(timms(x), network(x))
    again = load_pretrained(str(folder), drop_rate=0.4)
    assert again.drop_rate == 0.4
    assert save_pretrained(again, folder) == folder  # over an older one


def test_a_static_twin_is_saved_too(tmp_path: Path) -> None:
    network = make("dy_resnet10", static=True, depth_multiplier=0.5)
    x = images(1)
    with torch.no_grad():
        assert torch.equal(load_pretrained(save_pretrained(network, tmp_path))(x), network(x))


def test_model_card(saved: tuple[nn.Module, Path]) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(saved[1] / "README.md")
    assert card.data.library_name == "dynaconv"
    assert card.data.license == "apache-2.0"
    for words in (NAME, "routing='hierarchical'", "experts=3", "Trained on nothing.", "Yang 2019"):
        assert words in card.text


def test_other_classes(saved: tuple[nn.Module, Path]) -> None:
    network, folder = saved
    with pytest.raises(UserError, match=r"classifier.weight has shape \(3, 5, 256\).*classifier=False"):
        load_pretrained(folder, num_classes=9)
    other = load_pretrained(folder, num_classes=9, classifier=False)
    assert other(images(1)).shape == (1, 9)
    assert torch.equal(other.conv_stem.weight, network.conv_stem.weight)
    left = load_weights(timm.create_model(NAME, **KIND, num_classes=2), folder, classifier=False)
    assert left == ["classifier.bias", "classifier.router.fc.bias", "classifier.router.fc.weight", "classifier.weight"]


def test_another_shape_is_named(saved: tuple[nn.Module, Path]) -> None:
    before = make(NAME, experts=2)
    state = {key: tensor.clone() for key, tensor in before.state_dict().items()}
    with pytest.raises(UserError, match=r"blocks.3.0.conv_dw.weight has shape \(64, 1, 3, 3\); expected \(2, 64"):
        load_weights(before, saved[1])
    assert all(torch.equal(tensor, state[key]) for key, tensor in before.state_dict().items())
    with pytest.raises(UserError, match=r"conv_stem.wait is unknown. Did you mean 'conv_stem.weight'"):
        load_weights(before, {**state, "conv_stem.wait": torch.zeros(1)})
    static = {key: tensor for key, tensor in make(NAME, static=True).state_dict().items() if key != "bn1.bias"}
    with pytest.raises(UserError, match=r"bn1.bias is missing"):
        load_weights(before, static)


def test_static_weights_of_other_classes() -> None:
    network = make("dy_resnet10", num_classes=3)
    twin = make("dy_resnet10", static=True, num_classes=4)
    with pytest.raises(UserError, match=r"fc.weight has shape.*classifier=False"):
        load_weights(network, twin.state_dict())
    assert load_weights(network, twin.state_dict(), classifier=False) == ["fc.bias", "fc.weight"]
    assert torch.equal(network.layer1[0].conv1.weight[1], twin.layer1[0].conv1.weight)


@pytest.mark.parametrize("static", [False, True])
def test_weights_that_do_not_fit_are_named_by_their_file(static: bool, tmp_path: Path) -> None:
    """One flipped bit in the name of a tensor is enough."""
    state = {key.replace("bn1.bias", "bn1.biaq"): one for key, one in make(NAME, static=static).state_dict().items()}
    save_file({key: one.contiguous().clone() for key, one in state.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors|" + tmp_path.name):
        load_weights(make(NAME), tmp_path / "model.safetensors")


def damage(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "There is no config.json"),
        ("config.json", b"{", "is damaged"),
        ("config.json", b"[]", "expected an object"),
        ("config.json", b'{"architecture": "condconv_mobilenetv1_026"}', "Did you mean 'condconv_mobilenetv1_025'"),
        ("model.safetensors", None, "There are no weights"),
        ("model.safetensors", b"\x80\x04\x95pickle", "not a whole safetensors file"),
    ],
)
def test_damaged_folders(saved: tuple[nn.Module, Path], name: str, content: bytes | None, message: str) -> None:
    damage(saved[1], name, content)
    with pytest.raises(UserError, match=message):
        load_pretrained(saved[1])


def test_a_saved_option_that_is_impossible(saved: tuple[nn.Module, Path]) -> None:
    config: dict[str, Any] = json.loads((saved[1] / "config.json").read_text())
    config["model_args"]["routing"] = "hierarchic"
    (saved[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="Did you mean 'hierarchical'"):
        load_pretrained(saved[1])


def test_without_a_network() -> None:
    with pytest.raises(UserError, match=r"Cannot fetch someone/network from the hub.*give the path of a folder"):
        load_pretrained("someone/network")
    with pytest.raises(UserError, match="Cannot write someone/network on the hub"):
        push_to_hub(make("dy_resnet10"), "someone/network")
    with pytest.raises(UserError, match=r"neither a folder nor a repository.*Did you mean.* 'dy_resnet10'"):
        load_pretrained("dy_resnet1")
    with pytest.raises(UserError, match="no published weights"):
        load_pretrained("dy_resnet10")


def test_what_is_not_of_this_zoo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not built as a network of this zoo"):
        save_pretrained(nn.Linear(1, 1), tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        save_pretrained(make("dy_resnet10"), blocked / "folder")
