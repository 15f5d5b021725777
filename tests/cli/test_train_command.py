"""``dynaconv train``, ``eval``, ``predict`` as a user types them: output, exit codes, no traceback for a mistake."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dynaconv.cli import main
from dynaconv.errors import UserError
from dynaconv.train.run_folder.weights import load_trained

NETWORK = "test_byobnet"
QUICK = ["--epochs", "1", "--batch-size", "128", "--image-size", "16", "--workers", "0", "--quiet", "--device", "cpu"]
QUICK += ["--set", "curves=false"]


def train(*words: object) -> int:
    return main(["train", *map(str, words)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of a small network on the digits."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(NETWORK, "--data", "digits", "--out", out, *QUICK) == 0
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed for people, without line breaks."""
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "digits"], "Which network?"),
        ([NETWORK], "Which data?"),
        (["mobilenetv2_05", "--data", "digits"], "'mobilenetv2_050'"),
        ([NETWORK, "--data", "digit"], "Did you mean 'digits'"),
        ([NETWORK, "--data", "digits", "--epocs", "3"], "--epochs"),
        ([NETWORK, "--data", "digits", "--epochs", "three"], "epochs"),
        ([NETWORK, "--data", "digits", "--epochs", "0"], "epochs is 0"),
        ([NETWORK, "--data", "digits", "--set", "momentun=1"], "Did you mean 'momentum'"),
        ([NETWORK, "--data", "digits", "--set", "momentum"], "expected NAME=VALUE"),
        ([NETWORK, "--data", "digits", "--arg", "wings"], "expected NAME=VALUE"),
        ([NETWORK, "--data", "digits", "--arg", "wings=2"], "wings"),
        (["dy_resnet10", "--data", "digits", "--arg", "exprts=2"], "Did you mean 'experts'"),
        (["dy_resnet10", "--data", "digits", "--experts", "0"], "experts is 0"),
        ([NETWORK, "--data", "digits", "--method", "dynamc"], "method is 'dynamc'"),
        ([NETWORK, "--data", "digits", "--experts", "4"], "choose a method"),
        ([NETWORK, "--data", "digits", "--resume", "atuo"], "Did you mean 'auto'"),
        ([NETWORK, "--data", "digits", "--recipe", "nowhere.json"], "no recipe file nowhere.json"),
        (["--data", "digits", "--recipe", "dy_mobilenetv2_50"], "Did you mean 'dy_mobilenetv2_050"),
        ([NETWORK, "--data", "digits", "--finetune", "nowhere"], "no weights at nowhere"),
        ([NETWORK, "--data", "digits", "--amp", "fp8"], "amp is 'fp8'"),
    ],
)
def test_mistakes_exit_with_two_and_leave_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    text = said(capsys)
    assert message in text
    assert "Traceback" not in text
    assert list(tmp_path.rglob("*.pt")) == []


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "x"]) == 2
    assert "no command 'trian'. Did you mean 'train'" in said(capsys)


def test_show_prints_a_recipe_that_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        train(
            "--recipe", "dy_mobilenetv2_050", "--data", "digits", "--epochs", 3, "--set", "milestones=[1,2]", "--show"
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert (shown["settings"]["epochs"], shown["settings"]["lr"], shown["batch_size"]) == (3, 0.05, 256)
    assert shown["settings"]["milestones"] == [1, 2]
    (tmp_path / "recipe.json").write_text(json.dumps(shown))
    assert train("--recipe", tmp_path / "recipe.json", "--show") == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_arguments_of_the_network_reach_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--arg", "channels=[8,8,8,16]", "--out", out, *QUICK]
    assert train("test_resnet", "--data", "digits", *words) == 0
    assert load_trained(out).model.num_features == 16
    capsys.readouterr()
    assert train("dy_mobilenetv2_050", "--data", "digits", "--experts", 3, "--arg", "convs=C1", "--show") == 0
    assert json.loads(capsys.readouterr().out)["model"]["args"] == {"experts": 3, "convs": "C1"}


def test_a_run_is_not_begun_twice_and_not_resumed_as_another(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(NETWORK, "--data", "digits", "--out", run, *QUICK) == 2
    assert "already holds a run" in said(capsys)
    words = [word if word != "1" else "2" for word in QUICK]
    assert train(NETWORK, "--data", "digits", "--out", run, "--resume", "auto", *words) == 2
    assert "epochs is 1 there and 2 here" in said(capsys)
    assert train("test_resnet", "--data", "digits", "--out", run, "--resume", "auto", *QUICK) == 2
    text = said(capsys)
    assert f"model is {{'name': '{NETWORK}'" in text
    assert "--finetune" in text
    assert train(NETWORK, "--data", "digits", "--out", run, "--resume", "auto", *QUICK) == 0


def test_eval_gives_the_number_of_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert main(["eval", str(run), "--data", "digits", "--workers", "0", "--json", "--batch-size", "100"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top1"] == float(row["top1"])
    assert result["images"] == 359
    assert result["eval_loss"] == pytest.approx(float(row["eval_loss"]), rel=1e-5)


def test_eval_on_other_classes(run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0", "1"):
        (pictures / name).mkdir()
        for picture in list(pictures.glob("*.png")):
            (pictures / name / picture.name).write_bytes(picture.read_bytes())
    for picture in pictures.glob("*.png"):
        picture.unlink()
    assert main(["eval", str(run), "--data", str(pictures)]) == 2
    assert "has 2 classes (0, 1 ...) and the network was trained for 10" in said(capsys)
    assert main(["eval", str(run), "--data", str(pictures), "--all", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_predict_csv_and_json_agree(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(pictures), "--top", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert list(rows[0]) == ["file", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert float(rows[0]["probability_1"]) >= float(rows[0]["probability_2"]) > 0
    out = tmp_path / "result.json"
    assert main(["predict", str(run), str(pictures / "1.png"), "--top", "1", "--out", str(out)]) == 0
    (result,) = json.loads(out.read_text())
    assert result["classes"][0]["class"] == rows[1]["class_1"]
    assert result["classes"][0]["probability"] == pytest.approx(float(rows[1]["probability_1"]), abs=1e-5)


def test_predict_names_unreadable_images(run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "1.png").write_text("<html>")
    assert main(["predict", str(run), str(pictures)]) == 2
    assert "1.png: it is empty or not an image" in said(capsys)
    assert main(["predict", str(run), str(pictures), "--bad-images", "skip"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert [bool(row["class_1"]) for row in rows] == [True, False, True]


def test_predict_turns_a_picture_upright(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upright = Image.effect_noise((16, 16), 80).convert("RGB")
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.png", exif=exif)
    assert main(["predict", str(run), str(tmp_path / "upright.png"), str(tmp_path / "rotated.png")]) == 0
    one, two = csv.reader(capsys.readouterr().out.splitlines()[1:])
    assert one[1:] == two[1:]


def test_predict_refuses_a_pickle(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "model.pt")
    assert main(["predict", str(tmp_path / "model.pt"), str(pictures)]) == 2
    assert "Pickled weights" in said(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "."], "no weights at nowhere"),
        (["RUN", "nowhere.png"], "no file or folder nowhere.png"),
        (["RUN", "PICTURES", "--format", "cvs"], "Did you mean 'csv'"),
        (["RUN", "PICTURES", "--out", "/dev/null/x.csv"], "Cannot write --out"),
        (["RUN", "PICTURES", "--tpo", "3"], "--top"),
    ],
)
def test_predict_mistakes(
    run: Path, pictures: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"RUN": str(run), "PICTURES": str(pictures), ".": str(pictures)}
    assert main(["predict", *(known.get(word, word) for word in words)]) == 2
    assert message in said(capsys)


def test_weights_of_another_program(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, tmp_path / "other.safetensors")
    assert main(["predict", str(tmp_path / "other.safetensors"), str(pictures)]) == 2
    assert "expected weights written by 'dynaconv train'" in said(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dynamic", "condconv"])
def test_a_network_made_dynamic_comes_back_from_its_weights(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--method", method, "--experts", "2", "--lr", "0.01", "--out", out, *QUICK]
    assert train(NETWORK, "--data", "digits", *words) == 0
    with (out / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["routing_entropy"]) > 0
    capsys.readouterr()
    assert main(["eval", str(out), "--data", "digits", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == float(row["top1"])


@pytest.mark.parametrize("policy", ["foo", "orginal"])
def test_an_augmentation_policy_that_timm_does_not_know(policy: str, tmp_path: Path) -> None:
    from dynaconv.tasks.classification.transforms import Augment, Preprocess, training_transform

    preprocess = Preprocess(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(UserError, match=f"auto_augment is '{policy}'"):
        training_transform(preprocess, Augment(auto_augment=policy))
    for known in ("original", "v0r", "3a", "rand-m9-mstd0.5", "augmix-m3-w3"):
        assert training_transform(preprocess, Augment(auto_augment=known))


def test_predict_draws_on_copies(run: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "1.png").write_text("<html>")
    (pictures / "again").mkdir()
    Image.new("RGB", (40, 30)).save(pictures / "again" / "0.png")
    out = tmp_path / "drawn"
    assert main(["predict", str(run), str(pictures), "--bad-images", "skip", "--draw", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["0-3.png", "0.png", "2.png"]
    with Image.open(out / "0-3.png") as drawn:
        assert drawn.size == (40, 30)
        assert drawn.getextrema() != ((0, 0), (0, 0), (0, 0)), "the class stands on it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "clasification"], "There is no task 'clasification'. Did you mean 'classification'?"),
        (["--image-size", "16x"], "image_size is '16x'; expected a number, or height and width such as 256x192"),
        (["--image-size", "0"], "image_size is 0; expected at least 1 pixel"),
        (["--image-size", "32x16"], "image_size is 32x16; pictures to classify are square"),
    ],
)
def test_task_and_size_are_checked(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(NETWORK, "--data", "digits", "--out", tmp_path / "run", *words) == 2
    assert message in said(capsys)


def test_options_of_another_task_are_refused() -> None:
    from dynaconv.tasks import task_class

    with pytest.raises(UserError, match=r"The task classification has no option 'boxs'. Known: "):
        task_class("classification").open_data("digits", boxs="file.json", image_size=None)
