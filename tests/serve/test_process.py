"""`dynaconv serve` as a process: its address, its signals, its exit codes, and mistakes before it serves."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import torch

import dynaconv
from dynaconv.cli import main
from dynaconv.inference import freeze, save
from dynaconv.serve.loading import load_served
from serve.checkpoints import PREPROCESS, encoded, picture, spread, write_checkpoint
from serve.clients import PATIENCE, running

SOURCES = Path(__file__).resolve().parents[2] / "src"


@contextmanager
def process(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process once it listens, and its address."""
    started = subprocess.Popen(
        [sys.executable, "-m", "dynaconv", "serve", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        lines = [started.stdout.readline() for _ in range(2)]
        found = re.search(r"serving at (http://\S+)", "".join(lines))
        assert found, (lines, started.stderr.read() if started.stderr else "")
        yield started, found[1]
    finally:
        started.kill()
        started.communicate()


def test_sigterm_during_requests(checkpoint: Path) -> None:
    """Requests that have begun get their results, new ones do not connect, and the process ends well."""
    # Every request waits for others until its batch is full, which it never is.
    with process(checkpoint, "--port", 0, "--max-wait-ms", 1500, "--max-batch", 64) as (served, url):
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            while client.get("/healthz").status_code != 200:
                threading.Event().wait(0.05)
            with ThreadPoolExecutor(3) as pool:
                asked = [pool.submit(client.post, "/predict", files={"i": encoded(picture(n))}) for n in range(3)]
                while "dynaconv_inside_images 3.0" not in client.get("/metrics").text:
                    assert not any(one.done() for one in asked)
                served.send_signal(signal.SIGTERM)
                assert [one.result().status_code for one in asked] == [200, 200, 200]
        _, err = served.communicate(timeout=PATIENCE)
        assert (served.returncode, err) == (0, "")
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url + "/healthz", trust_env=False)


@pytest.mark.slow
def test_ctrl_c_is_130_in_one_line_and_the_log_is_quiet(checkpoint: Path) -> None:
    with process(checkpoint, "--port", 0, "--no-freeze", "--access-log") as (served, url):
        with socket.create_connection((httpx2.URL(url).host, httpx2.URL(url).port), timeout=PATIENCE) as rude:
            rude.sendall(b"\x00\x01\x02 no HTTP\r\n\r\n")
            assert rude.recv(100).startswith(b"HTTP/1.1 400")
        httpx2.get(url + "/none%0aforged", trust_env=False, timeout=PATIENCE)
        served.send_signal(signal.SIGINT)
        _, err = served.communicate(timeout=PATIENCE)
    lines = err.splitlines()
    assert (served.returncode, lines[-1]) == (130, "dynaconv: Interrupted.")
    assert lines[0] == "dynaconv: WARNING: Invalid HTTP request received."
    assert re.fullmatch(
        r'dynaconv: INFO: 127\.0\.0\.1:\d+ - "GET /none%0aforged HTTP/1\.1" 404', lines[1], re.IGNORECASE
    )
    assert len(lines) == 3


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), "one line"
    return err


def test_a_port_in_use_is_said_before_the_network_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "nowhere", "--port", str(port)]) == 2
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use" in said(capsys)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--host", "no.such.host.invalid"], "There is no address 'no.such.host.invalid' to listen on"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1"),
        (["--port", "70000"], "port is 70000"),
        (["--max-batch", "0"], "max_batch is 0"),
        (["--queue", "3"], "max_images is 16 and queue 3"),
        (["--timeout", "nan"], "timeout is nan"),
        (["--max-megapixels", "1e9"], "max_megapixels is 1000000000.0"),
        (["--device", "gpu"], "device is 'gpu'"),
        (["--bank-dtype", "int7"], "bank_dtype"),
        (["--no-freeze", "--bank-dtype", "int8"], "--bank-dtype is for a network that is frozen here"),
        (["--image-size", "64"], "--image-size is for files of dynaconv.save"),
        (["--prot", "1"], "Did you mean '--port'"),
    ],
)
def test_mistakes(words: list[str], text: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = [] if "--port" in words else ["--port", "0"]
    assert main(["serve", str(checkpoint), *port, *words]) == 2
    assert text in said(capsys)


def test_checkpoints_that_cannot_be_served(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    whole = checkpoint.read_bytes()
    bad = {
        "empty": (b"", "not a whole safetensors file"),
        "cut": (whole[:-100], "not a whole safetensors file"),
        "flipped": (whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:], "damaged"),
        "pickled": (b"\x80\x04\x95", "they may run code"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    save_file({"a": torch.zeros(3)}, tmp_path / "others.safetensors")
    write_checkpoint(tmp_path / "nameless.safetensors")
    (tmp_path / "folder").mkdir()
    expected = {name: text for name, (_, text) in bad.items()}
    expected |= {"others": "they do not say their model, classes, preprocess", "nowhere": "no weights at"}
    for name, text in expected.items():
        assert main(["serve", str(tmp_path / f"{name}.safetensors"), "--port", "0"]) == 2
        assert text in said(capsys)
    assert main(["serve", str(tmp_path / "folder"), "--port", "0"]) == 2
    assert "no weights at" in said(capsys)


def archive(path: Path, **changes: object) -> Path:
    import timm

    network = timm.create_model("test_resnet", num_classes=3)
    twin = spread(dynaconv.dynamize(network, method="condconv", experts=2)).eval()
    for name, value in changes.items():
        setattr(twin, name, value)
    return save(twin, path)


def test_a_file_of_save_with_classes_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, classes = archive(tmp_path / "twin.safetensors"), tmp_path / "classes.txt"
    names = ["ant", "bee", "Ötzi"]
    served = load_served(path, classes=names, image_size=32)
    assert served.classes == names
    frozen = save(freeze(dynaconv.load(path), input_size=(3, 32, 32)), tmp_path / "frozen.safetensors")
    again = load_served(frozen, classes=names, image_size=32)
    found = []
    for one in (served, again):
        with running(one) as service:
            found.append(service.predict(encoded(picture(1)), top=3, routing=True).json()["images"][0])
    assert [row["class"] for row in found[0]["classes"]] == [row["class"] for row in found[1]["classes"]]
    assert {len(row["weights"]) for row in found[0]["routing"]} == {2}
    capsys.readouterr()
    for words, text in (
        ([], "does not say the names of its classes"),
        (["--classes", str(tmp_path / "none.txt")], "cannot be read"),
        (["--classes", str(path)], "cannot be read"),
    ):
        assert main(["serve", str(path), "--port", "0", *words]) == 2
        assert text in said(capsys)
    for content, text in (("", "no list of names"), ("a\nb\n", "2 classes are named, and the network of")):
        classes.write_text(content)
        assert main(["serve", str(path), "--port", "0", "--classes", str(classes), "--image-size", "32"]) == 2
        assert text in said(capsys)
    path.write_bytes(path.read_bytes()[:-8])
    assert main(["serve", str(path), "--port", "0", "--classes", str(classes)]) == 2
    said(capsys)


@pytest.mark.parametrize(("batch", "takes"), [(None, "normalised"), (2, "uint8")])
def test_an_exported_file(
    batch: int | None, takes: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime instead of PyTorch: the same classes."""
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    from dynaconv.export import export

    path = tmp_path / "network.onnx"
    export(checkpoint, path, batch=batch, input=takes)
    pictures = [encoded(picture(number)) for number in range(3)]
    found = []
    for one in (load_served(checkpoint), load_served(path)):
        with running(one) as service:
            response = service.predict(*pictures, routing=True)
            assert response.status_code == 200, response.text
            found.append(response.json()["images"])
            described = service.client.get("/model").json()
    assert ("(onnx)" in described["name"], described["routers"]) == (True, [])
    for ours, theirs in zip(*found, strict=True):
        assert theirs["routing"] == []
        assert [row["class"] for row in ours["classes"]] == [row["class"] for row in theirs["classes"]]
        for row, other in zip(ours["classes"], theirs["classes"], strict=True):
            assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)
    path.write_bytes(path.read_bytes()[:-100])
    capsys.readouterr()
    assert main(["serve", str(path), "--port", "0"]) == 2
    assert main(["serve", str(tmp_path / "other.pt2"), "--port", "0"]) == 2
    assert "export it with --to onnx" in capsys.readouterr().err


def test_a_network_that_returns_nan_is_not_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dynaconv.tasks import task_class
    from dynaconv.train.run_folder.weights import save_weights
    from serve.checkpoints import ABOUTS

    about = {"task": "classification", **ABOUTS["classification"], "preprocess": PREPROCESS}
    _, network = task_class("classification").of_weights(about)
    torch.nn.init.constant_(network.get_parameter("fc.weight"), float("nan"))
    save_weights(tmp_path / "nan.safetensors", network, about)
    for words in ([], ["--no-freeze"]):
        assert main(["serve", str(tmp_path / "nan.safetensors"), "--port", "0", *words]) == 2
        assert re.search("NaN|finite", said(capsys))
