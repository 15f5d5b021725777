"""A network that AOTInductor compiled runs in a program without Python, by the operators in C++."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.export import export, load
from dynaconv.kernels import cpu
from tolerances import assert_close

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cpp"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the program and the library of operators."""
    if shutil.which("cc") is None or shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler (cc, c++) on the path")
    if cpu.why_not() is not None:
        pytest.skip(f"the kernels are not available: {cpu.why_not()}")
    folder = tmp_path_factory.mktemp("cpp")
    run([str(EXAMPLE / "build.sh"), str(folder)], PYTHON=sys.executable)
    return folder


def run(command: list[str], **environment: str) -> str:
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=450, check=False, env={**os.environ, **environment}
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout


class Small(nn.Module):
    """Dense, depthwise and 1x1 layers with routers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = dynaconv.DynamicConv2d(3, 24, 3, stride=2, padding=1)
        self.deep = dynaconv.CondConv2d(24, 24, 3, groups=24, bias=False)
        self.point = dynaconv.DynamicConv2d(24, 40, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point(torch.relu(self.deep(torch.relu(self.dense(x))))).mean(dim=(2, 3))


@pytest.mark.parametrize("bank_dtype", [None, "int8"])
def test_the_program_computes_what_python_computes(bank_dtype: str | None, built: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Small().eval()
    names = [f"class {number}" for number in range(40)]
    report = export(network, tmp_path / "x.pt2", to="aoti", image_size=16, bank_dtype=bank_dtype, classes=names)
    for batch in (1, 3):
        images = torch.randn(batch, 3, 16, 16)
        images.numpy().tofile(tmp_path / "images.bin")
        words = [str(report.path), str(tmp_path / "images.bin"), *map(str, images.shape), str(tmp_path / "out.bin")]
        said = run([str(built / "run"), *words])
        assert json.loads(said.splitlines()[0])["classes"] == names
        made = torch.from_file(str(tmp_path / "out.bin"), size=batch * 40).view(batch, 40)
        assert_close(made, load(report.path).run(images)["logits"])


def test_mistakes_are_named(built: Path, tmp_path: Path) -> None:
    (tmp_path / "images.bin").write_bytes(b"1234")
    for words, message in (([], "usage: "), (["none.pt2", str(tmp_path / "images.bin"), *"1234", "out"], "none.pt2")):
        made = subprocess.run([str(built / "run"), *words], capture_output=True, text=True, check=False)
        assert made.returncode in (1, 2)
        assert message in made.stderr


CHILD = """
import sys, torch
torch.ops.load_library(sys.argv[1])
cases, wrong = torch.load(sys.argv[2])
for arguments, expected in cases:
    for made, wanted in zip(torch.ops.dynaconv.frozen_layer(*arguments), expected):
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
for name, arguments in wrong:
    try:
        torch.ops.dynaconv.frozen_layer(*arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        print(name, "|", str(error).splitlines()[0])
    else:
        raise SystemExit(f"{name}: no error")
assert "dynaconv" not in sys.modules
"""


def test_the_operator_in_cpp_is_the_one_of_python(built: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cases = [case(depthwise, kind, **more) for depthwise in (False, True) for kind, more in KINDS]
    right = case(False, torch.float32)
    wrong = []
    for place, value in WRONG.items():
        changed = [*right]
        changed[place] = value
        wrong.append((str(place), changed))
    with_results = [(one, torch.ops.dynaconv.frozen_layer.default(*one)) for one in cases]
    torch.save((with_results, wrong), tmp_path / "cases.pt")
    library = str(built / "libdynaconv_operators.so")
    said = run([sys.executable, "-c", CHILD, library, str(tmp_path / "cases.pt")], PYTHONPATH="")
    assert len(said.splitlines()) == len(WRONG)


KINDS: list[tuple[torch.dtype, dict[str, Any]]] = [
    (torch.float32, {}),
    (torch.float32, {"routed": True, "activation": "silu"}),
    (torch.bfloat16, {"hidden": 0, "activation": "hardswish"}),
    (torch.int8, {"batch": 5}),
    (torch.float32, {"batch": 0}),
]
WRONG: dict[int, Any] = {  # places of the arguments
    0: torch.randn(2, 7, 9, 8),
    2: torch.randn(2, 9),
    3: torch.randn(4, 2, 9, 32),
    4: torch.ones(4, 2, 1, 32),
    5: torch.randn(3),
    9: None,
    11: [40, 6, 30, 30],
    12: [0, 1],
    17: "relu",
}


def case(
    depthwise: bool,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    hidden: int = 5,
    routed: bool = False,
    activation: str = "clamp",
) -> list[Any]:
    """Arguments of ``dynaconv::frozen_layer``."""
    experts, channels, out = 4, 6, 6 if depthwise else 40
    shape = (experts, 9, channels) if depthwise else (experts, 2, 9 * channels, 32)
    bank, scale = torch.randn(shape), None
    if not depthwise:
        bank[:, 1, :, 8:] = 0  # 40 of 64 columns
    if dtype == torch.int8:
        bank = torch.randint(-127, 128, shape, dtype=torch.int8)
        scale = torch.rand((experts, 1, channels) if depthwise else (experts, 2, 1, 32)) / 100
    router = [torch.randn(hidden, channels), torch.randn(hidden)] if hidden else [None, None]
    last = [torch.randn(experts, hidden or channels), torch.randn(experts)]
    routing = torch.rand(batch, experts) if routed else None
    return [
        torch.randn(batch, channels, 9, 8), None, routing, bank if scale is not None else bank.to(dtype), scale,
        torch.randn(out), torch.randn(experts, out), *(router if not routed else [None, None]),
        *(last if not routed else [None, None]), [out, 1 if depthwise else channels, 3, 3],
        [2, 1], [1, 0], [1, 2], channels if depthwise else 1, hidden > 0, activation, -0.5, 3.0,
    ]  # fmt: skip
