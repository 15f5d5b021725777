"""What the service returns is what `dynaconv predict` writes, whichever way the pictures come."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dynaconv.cli import main
from dynaconv.serve.loading import load_served
from dynaconv.serve.model import Served
from dynaconv.train.run_folder.weights import load_trained
from serve.checkpoints import CLASSES, encoded, picture, write_checkpoint
from serve.clients import Held, Running, running


def same(one: Any, other: Any, tolerance: float = 2e-5) -> bool:
    """Equal up to rounding: batches of other sizes are summed in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return one == other if not isinstance(one, float) else abs(one - other) <= tolerance * max(1.0, abs(one))


def test_equal_to_predict_in_any_form_and_number(
    service: Running, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        picture(number, (40 + 9 * number, 30)).save(path)
    assert main(["predict", str(checkpoint), *map(str, paths), "--format", "json", "--top", "3"]) == 0
    expected = [row["classes"] for row in json.loads(capsys.readouterr().out)]
    assert not same(expected[0], expected[1], 1e-3), "the pictures differ clearly"
    contents = [path.read_bytes() for path in paths]
    texts = [base64.b64encode(content).decode() for content in contents]
    responses = [
        service.predict(*contents, top=3),
        service.client.post("/predict?top=3", files=[("anything", content) for content in contents]),
        service.client.post("/predict", json={"images": texts, "top": 3}),
    ]
    for response in responses:
        assert response.status_code == 200, response.text
        assert same([image["classes"] for image in response.json()["images"]], expected)
        assert set(response.json()["images"][0]) == {"classes"}, "the routing only if it was asked for"
    for content, one in zip(contents, expected, strict=True):
        assert same(service.predict(content, top=3).json()["images"][0]["classes"], one)


def test_five_classes_unless_told_otherwise_and_names_as_they_are(service: Running) -> None:
    (image,) = service.predict(encoded(picture(0))).json()["images"]
    assert sorted(one["class"] for one in image["classes"]) == sorted(CLASSES)


@pytest.mark.parametrize("frozen", [True, False])
def test_routing_is_that_of_the_layers(frozen: bool, served: Served, checkpoint: Path) -> None:
    """As a forward hook on every router of the network as it was trained sees it."""
    trained = load_trained(checkpoint)
    seen: dict[str, torch.Tensor] = {}
    for name, module in trained.model.named_modules():
        if hasattr(module, "router"):
            module.router.register_forward_hook(lambda _, __, weights, name=name: seen.update({name: weights}))
    pictures = [picture(number) for number in range(3)]
    with torch.no_grad():
        trained.model(trained.task.batch([trained.task.example(one) for one in pictures], torch.device("cpu"))[0])
    with running(served if frozen else load_served(checkpoint, frozen=False)) as service:
        images = service.predict(*map(encoded, pictures), routing="true").json()["images"]
        described = service.client.get("/model").json()
    assert [one["router"] for one in images[0]["routing"]] == list(seen), "in the order in which they run"
    assert {one["router"] for one in described["routers"]} == set(seen)
    for row, image in enumerate(images):
        for one in image["routing"]:
            expected = seen[one["router"]][row].tolist()
            assert one["weights"] == pytest.approx(expected, abs=2e-5)
            assert one["layers"] == [one["router"]]
    spread = [max(weights) for weights in (one["weights"] for one in images[0]["routing"])]
    assert max(spread) > 0.6, "the test's network does choose experts"


def test_layers_that_share_a_router_are_named(tmp_path: Path) -> None:
    """A scope of a block."""
    model = {"name": "test_resnet", "method": "condconv", "experts": 3, "share": "block"}
    served = load_served(write_checkpoint(tmp_path / "weights.safetensors", model=model))
    with running(served) as service:
        (image,) = service.predict(encoded(picture(1)), routing=True).json()["images"]
    shared = [one for one in image["routing"] if len(one["layers"]) > 1]
    assert shared
    for one in shared:
        assert all(layer.startswith(one["router"] + ".") for layer in one["layers"])
        assert len(one["weights"]) == 3


@pytest.mark.parametrize("task", ["detection", pytest.param("keypoints", marks=pytest.mark.slow)])
def test_boxes_and_poses(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_checkpoint(tmp_path / "weights.safetensors", task)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        picture(number, (40, 30 + 20 * number)).save(path)
    few = ["--min-score", "0.33", "--top", "4"] if task == "detection" else []
    assert main(["predict", str(weights), *map(str, paths), "--format", "json", *few]) == 0
    rows = json.loads(capsys.readouterr().out)
    key = {"detection": "boxes", "keypoints": "poses"}[task]
    options = {"min_score": 0.33, "top": 4} if task == "detection" else {}
    with running(load_served(weights, frozen=False)) as service:
        response = service.predict(*(path.read_bytes() for path in paths), routing="1", **options)
        assert response.status_code == 200, response.text
        images = response.json()["images"]
        refused = service.predict(paths[0].read_bytes(), tops=3)
    assert same([image[key] for image in images], [row[key] for row in rows], 1e-3)
    assert all(image[key] for image in images)
    assert {len(one["weights"]) for image in images for one in image["routing"]} == {2}
    assert refused.status_code == 422
    assert "no option 'tops'" in refused.json()["detail"]


def test_everybody_gets_their_own_result_from_a_shared_batch(served: Served) -> None:
    """Twelve clients at once, with pictures and options of their own."""
    held = Held(served)
    contents = [encoded(picture(number)) for number in range(12)]
    with running(held, max_batch=16, max_wait_ms=0) as service:
        with ThreadPoolExecutor(12) as clients:
            first = clients.submit(service.predict, contents[0])
            assert held.began.acquire(timeout=60)
            others = [
                clients.submit(service.predict, contents[number], top=1 + number % 4, routing=number % 2)
                for number in range(1, 12)
            ]
            while service.service.batcher.waiting < 11:
                assert not any(other.done() for other in others)
            held.go.set()
            found = [one.result().json()["images"] for one in [first, *others]]
        alone = [service.predict(content, routing=1).json()["images"] for content in contents]
    assert held.batches[:2] == [1, 11], "what came while the first was computed became one batch"
    for number, ((image,), (expected,)) in enumerate(zip(found, alone, strict=True)):
        top = 1 + number % 4 if number else 4
        assert same(image["classes"], expected["classes"][:top])
        assert ("routing" in image) == (number % 2 == 1)
        if "routing" in image:
            assert same(image["routing"], expected["routing"])
    assert not same(alone[1], alone[2])


ORIENTATIONS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def odd_pictures() -> dict[str, tuple[bytes, Image.Image]]:
    """Files as clients send them, and the picture that each one is."""
    plain = picture(5)
    odd = {
        "grey": (encoded(plain.convert("L")), plain.convert("L").convert("RGB")),
        "with transparency": (encoded(plain.convert("RGBA"), "webp", lossless=True), plain),
        "animated": (encoded(plain, "gif", save_all=True, append_images=[picture(6)]), plain),
        "TIFF": (encoded(plain, "tiff"), plain),
        "16 bits": (
            encoded(Image.fromarray((torch.arange(1200).reshape(30, 40) * 54).numpy().astype("uint16"))),
            Image.fromarray((torch.arange(1200).reshape(30, 40) * 54 / 257).numpy().astype("uint8")),
        ),
        "CMYK": (encoded(plain.convert("CMYK"), "jpeg", quality=100, subsampling=0), plain),
    }
    for orientation, undo in ORIENTATIONS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        odd[f"EXIF {orientation}"] = (encoded(plain.transpose(undo), exif=exif), plain)
    return odd


def test_odd_pictures(service: Running) -> None:
    for name, (content, image) in odd_pictures().items():
        response = service.predict(content, routing=True)
        assert response.status_code == 200, (name, response.text)
        expected = service.predict(encoded(image), routing=True).json()
        close = 0.05 if name in ("CMYK", "animated") else 2e-3 if name == "16 bits" else 2e-5
        assert same(response.json()["images"][0]["routing"], expected["images"][0]["routing"], close), name
