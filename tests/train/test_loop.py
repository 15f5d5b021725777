"""What a step and an epoch do."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynaconv.errors import RunError, UserError
from dynaconv.train import TrainSettings, fit, trainer
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.run_folder.checkpoint import damage_of, read_checkpoint
from train.tiny import Tiny, digits, newest, settings, tiny


def plain(**options: Any) -> TrainSettings:
    """Plain SGD: nothing random in the loop."""
    quiet = {"device": "cpu", "curves": False, "tensorboard": False}
    return TrainSettings(**{"epochs": 1, "lr": 0.1, "crop": "none", **quiet, **options})


def test_it_learns() -> None:
    result = fit(tiny(dropout=0.0), digits(train=1000, evaluation=300), plain(epochs=4, lr=0.2))
    assert result.top1 > 0.6
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert [record.epoch for record in result.history] == [0, 1, 2, 3]
    assert result.best_top1 == max(record.top1 or 0 for record in result.history)
    assert 0 < result.train_seconds_per_image < 1
    assert result.checkpoint is None


def test_the_step_is_the_one_written_by_hand() -> None:
    """The loop against model, loss, backward, optimizer in ten lines: bit-equal weights."""
    by_loop, by_hand = tiny(dropout=0.0), tiny(dropout=0.0)
    chosen = plain(
        **{"sched": "constant", "weight_decay": 0.01, "temperature_start": 2.0, "temperature_end": 2.0},
        **{"temperature_epochs": 0, "channels_last": False, "opt_args": {"fused": False}},
    )
    fit(by_loop, digits(), chosen)
    by_hand.router.temperature.fill_(2.0)
    decay = [p for n, p in by_hand.named_parameters() if p.ndim > 1 and not n.endswith("bias")]
    rest = [p for n, p in by_hand.named_parameters() if p.ndim <= 1 or n.endswith("bias")]
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,  # timm's "sgd"
    )
    by_hand.train()
    for images, labels in digits().training_batches(chosen.augment):
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(images), labels).backward()
        optimizer.step()
    for (name, one), two in zip(by_loop.named_parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_accumulation_gives_the_same_gradient() -> None:
    """Without batch norm, whose statistics are a part's own."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 10))

    whole, parts = network(), network()
    fit(whole, digits(), plain())
    result = fit(parts, digits(), plain(accumulate=3))  # 32 = 11 + 11 + 10
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert math.isfinite(result.history[0].train_loss)


def test_clipping_limits_the_step() -> None:
    def moved(clip: float | None) -> float:
        model = tiny(dropout=0.0)
        before = [p.detach().clone() for p in model.parameters()]
        chosen = plain(opt="momentum", momentum=0.0, weight_decay=0.0, sched="constant", clip_grad=clip)
        fit(model, digits(train=32), chosen)
        moves = [(a.detach() - b).norm() for a, b in zip(model.parameters(), before, strict=True)]
        return float(torch.stack(moves).norm())

    assert moved(0.01) == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert moved(None) > 0.01


class NotFinite(Tiny):
    """Returns NaN for some of the training steps, after its batch norm has seen infinite activations."""

    def __init__(self, bad: range) -> None:
        super().__init__(dropout=0.0)
        self.bad, self.calls = bad, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            if self.calls - 1 in self.bad:
                x = x + float("inf")
        return super().forward(x)


def test_a_step_that_is_not_finite_is_dropped_without_a_trace(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NotFinite(range(5, 6))  # the last step of the epoch
    result = fit(model, digits(), plain(ema=0.9, sched="constant"), out=tmp_path)
    assert result.history[0].dropped_steps == 1
    assert math.isfinite(result.history[0].train_loss)
    torch.manual_seed(0)
    shorter = NotFinite(range(0))
    fit(shorter, digits(train=160), plain(sched="constant"))  # other pictures, but five steps
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert int(model.norm.num_batches_tracked) == int(shorter.norm.num_batches_tracked) == 5
    saved = read_checkpoint(newest(tmp_path))
    assert all(torch.isfinite(tensor).all() for tensor in saved["ema"].values())


def test_too_many_in_a_row_stop_the_run_and_leave_a_good_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NotFinite(range(8, 1000))
    with pytest.raises(RunError, match=r"not finite for 3 steps in a row \(epoch 1, up to step 5\)") as stopped:
        fit(model, digits(), plain(epochs=3, nan_patience=3), out=tmp_path)
    assert stopped.value.exit_code == 1
    last = newest(tmp_path)
    assert damage_of(last) is None
    assert all(torch.isfinite(tensor).all() for tensor in read_checkpoint(last)["model"].values())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_now_and_then_is_forgiven() -> None:
    torch.manual_seed(0)
    result = fit(NotFinite(range(0, 6, 2)), digits(), plain(nan_patience=2))
    assert result.history[0].dropped_steps == 3


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_temperature_is_annealed_and_logged(per: str) -> None:
    model = tiny()
    chosen = settings(epochs=4, temperature_epochs=2, temperature_per=per, temperature_start=30, temperature_end=1)
    result = fit(model, digits(), chosen)
    expected = [30, 15.5, 1, 1] if per == "epoch" else [15.5, 1, 1, 1]
    assert [record.temperature for record in result.history] == pytest.approx(expected)
    assert float(model.router.temperature) == 1


def test_averaged_model_has_the_temperature_of_the_model(tmp_path: Path) -> None:
    """It is a setting, not a weight: averaging would leave it behind."""
    fit(tiny(), digits(), settings(epochs=2, temperature_epochs=2, ema=0.99), out=tmp_path)
    saved = read_checkpoint(newest(tmp_path))
    assert float(saved["model"]["router.temperature"]) == float(saved["ema"]["router.temperature"]) == 1.0


class Collapsed(Tiny):
    """Its router always chooses one expert."""

    def __init__(self) -> None:
        super().__init__()
        self.router.fc = nn.Linear(2, 3)
        nn.init.constant_(self.router.fc.bias, 0.0)
        self.router.fc.bias.data[1] = 40.0
        self.router.fc.requires_grad_(False)


def test_collapsed_routing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="dynaconv"):
        result = fit(Collapsed(), digits(), plain(temperature_epochs=0))
    assert "collapsed in 1 of 1 routers: router (expert 1 for 100% of the examples, entropy 0.000)" in caplog.text
    assert result.history[0].routing_entropy == {"router": pytest.approx(0, abs=1e-6)}


def test_even_routing_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dynaconv"):
        result = fit(tiny(), digits(), plain())
    assert "collapsed" not in caplog.text
    assert 0.99 < result.history[0].routing_entropy["router"] <= 1.0


@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_huge_logits_and_low_temperature_give_no_nan(amp: str) -> None:
    torch.manual_seed(0)
    model = Collapsed()
    model.router.fc.bias.data[1] = 1e4
    result = fit(model, digits(), plain(amp=amp, temperature_start=0.01, temperature_end=0.01))
    assert result.history[0].dropped_steps == 0
    assert math.isfinite(result.history[0].train_loss)


def test_bf16_leaves_the_model_as_it_was() -> None:
    model = tiny()
    fit(model, digits(), plain(amp="bf16"))
    assert "forward" not in model.__dict__
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    fit(model, digits(), plain(amp="no"))
    assert model(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


def test_fp16_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"fp16 on cpu would train without a gradient scaler.*--amp bf16"):
        fit(tiny(), digits(), plain(amp="fp16"))


def scaled_on_the_cpu(monkeypatch: pytest.MonkeyPatch, scale: float) -> list[Any]:
    """Give accelerate torch's gradient scaler for the CPU, which it has for GPUs only; return the scalers made."""
    scalers = []

    def with_scaler(chosen: TrainSettings) -> Any:
        accelerator = make_accelerator(TrainSettings(**{**chosen.model_dump(), "amp": "bf16"}))
        accelerator.state._mixed_precision = "fp16"
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=4)
        scalers.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr(trainer, "make_accelerator", with_scaler)
    return scalers


def test_fp16_overflow_lowers_the_scale_and_drops_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    scalers = scaled_on_the_cpu(monkeypatch, scale=2.0**60)
    result = fit(tiny(), digits(), plain(epochs=12, nan_patience=200, eval_every=12))
    dropped = sum(record.dropped_steps for record in result.history)
    assert 30 < dropped < 60
    assert result.history[-1].dropped_steps < 6
    assert scalers[0].get_scale() < 2.0**31
    assert math.isfinite(result.history[-1].train_loss)


def test_fp16_resumes_with_its_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scalers = scaled_on_the_cpu(monkeypatch, scale=1024.0)
    fit(tiny(), digits(), plain(epochs=2, amp="fp16"), out=tmp_path / "one")
    scale = scalers[-1].get_scale()
    assert scale == 1024.0 * 2**3, "12 steps: it grew three times"
    fit(tiny(), digits(), plain(epochs=2, amp="fp16"), out=tmp_path / "one", resume="auto")
    assert scalers[-1].get_scale() == scale
    assert read_checkpoint(newest(tmp_path / "one"))["scaler"]["scale"] == scale


def test_channels_last_and_deterministic() -> None:
    model = tiny()
    result = fit(model, digits(), plain(channels_last=True, deterministic=True))
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not torch.are_deterministic_algorithms_enabled()
    assert math.isfinite(result.history[0].train_loss)


def test_evaluation_counts_every_example_once() -> None:
    """80 examples in batches of 32: the last has 16."""
    model, data = tiny(), digits()
    result = fit(model, data, plain())
    model.eval()
    with torch.no_grad():
        pairs = [(model(images), labels) for images, labels in data.eval_loader]
    logits, labels = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    assert len(labels) == 80
    assert result.top1 == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean()
    assert result.history[0].top5 == pytest.approx(float(top5))
    assert result.history[0].eval_loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_evaluation_now_and_then() -> None:
    result = fit(tiny(), digits(), plain(epochs=5, eval_every=2))
    assert [bool(record.metrics) for record in result.history] == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"opt": "sgdd"}, "no optimizer 'sgdd'. Did you mean 'sgd"),
        ({"opt_args": {"wings": 1}}, "does not take opt_args"),
    ],
)
def test_settings_that_timm_does_not_know(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(tiny(), digits(), plain(**changed))


def test_mixup_wants_even_batches() -> None:
    with pytest.raises(UserError, match="even batch per process, got 31"):
        fit(tiny(), digits(batch_size=31), plain(mixup=0.2))


def test_resume_takes_two_words() -> None:
    with pytest.raises(UserError, match=r"resume is 'atuo'.*Did you mean 'auto'"):
        fit(tiny(), digits(), plain(), resume="atuo")


@pytest.mark.slow
def test_compiled_equals_uncompiled() -> None:
    one, two = tiny(dropout=0.0), tiny(dropout=0.0)
    fit(one, digits(), plain(epochs=2))
    fit(two, digits(), plain(epochs=2, compile=True))
    assert two._compiled_call_impl is None
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_processes_that_do_not_find_each_other_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train alone and write into the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(RunError, match="2 processes were launched, and accelerate has joined 1"):
        make_accelerator(plain())


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is asked")
@pytest.mark.parametrize(("options", "kept"), [("", True), (", keep_memory=False", False)])
def test_freed_memory_is_kept_as_by_the_commands(options: str, kept: bool) -> None:
    """The plan of strategies depends on it, and must not differ between ``dynaconv train`` and ``fit``."""
    script = (
        "import sys; sys.path[:0] = ['src', 'tests']\n"
        "from dynaconv.kernels.cpu import keeps_memory\n"
        "from dynaconv.train import fit\n"
        "from train.tiny import digits, settings, tiny\n"
        "before = keeps_memory()\n"
        f"fit(tiny(), digits(train=32, evaluation=32), settings(epochs=1, temperature_epochs=0){options})\n"
        "print(before, keeps_memory())"
    )
    repository = Path(__file__).resolve().parents[2]
    said = subprocess.check_output([sys.executable, "-c", script], cwd=repository, text=True)
    assert said.split() == ["False", str(kept)]
