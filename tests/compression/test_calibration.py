"""Moments against the inputs themselves, and what compression makes of them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asrcompress import cli, models
from asrcompress.compression import Plan, activations, calibration, compress, load, save_model
from asrcompress.compression.calibration import unfolded
from asrcompress.errors import UserError
from asrcompress.models._conv import Conv1d
from tests.compression.models_of_tests import Odd, classifier, net, seen_batches


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 3, 3), (3, 2, 2)])
def test_rows_times_the_weight_are_the_convolution(stride: int, padding: int, dilation: int) -> None:
    for conv in (nn.Conv1d(5, 7, 3, stride, padding, dilation), Conv1d(5, 7, 3, stride, padding, dilation)):
        x = torch.randn(2, 5, 20)
        rows = unfolded(conv, x)
        expected = conv(x).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(rows @ conv.weight.flatten(1).T + conv.bias, expected)


def batches(count: int, **options: object) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 16, 20 + 5 * i, generator=generator, **options),) for i in range(count)]


def test_moments_are_those_of_everything_a_layer_saw() -> None:
    model, seen = net().double(), {"convs.0": [], "convs.1": [], "output": []}
    for path, rows in seen.items():
        layer = model.get_submodule(path)
        layer.register_forward_pre_hook(lambda layer, args, rows=rows: rows.append(unfolded(layer, args[0])))
    data = batches(3, dtype=torch.float64)
    moments = calibration.collect(model, data)
    assert moments.keys() == seen.keys()  # the depthwise convolution is a parameter, not a matrix product
    for path, rows in seen.items():
        x = torch.cat(rows)
        torch.testing.assert_close(moments[path], x.T @ x / len(x))
    single = calibration.collect(net(), [(x.float(),) for x, in data])["output"]
    torch.testing.assert_close(single, moments["output"], rtol=1e-4, atol=1e-5)


def test_no_moment_is_taken_across_channels_that_never_meet() -> None:
    model = nn.Sequential(Conv1d(8, 8, 3, padding=1, groups=8), nn.Conv1d(8, 8, 3, groups=2), nn.Conv1d(8, 8, 1))
    data = [(torch.randn(2, 8, 20),)]
    assert calibration.collect(model, data).keys() == {"2"}
    assert activations.observe(model, data).keys() == {"0", "1", "2"}, "a range of a whole input says no more"


def test_the_model_is_left_as_it_was() -> None:
    model = net().train()
    model.norms[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibration.collect(model, batches(2))
    assert model.training and model.norms[0].training and not model.norms[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_called_by_keyword_is_seen_and_one_that_is_not_called_is_left_out() -> None:
    assert calibration.collect(Odd(), [(torch.randn(3, 4),)]).keys() == {"used"}
    with pytest.raises(UserError, match="unused: calibration saw no input"):
        compress(Odd(), Plan("svd", 0.9, budget="uniform", options={"data_aware": True}),
                 calibration={"used": torch.eye(4)})
    with pytest.raises(UserError, match="used: it sees values that are not finite"):
        calibration.collect(Odd(), [(torch.full((3, 4), float("nan")),)])


@pytest.mark.parametrize("budget", ["uniform", "global_greedy", "alds"])
def test_compressed_for_the_data_the_outputs_are_nearer(budget: str) -> None:
    model, data = net(64), batches(4)
    moments = calibration.collect(model, data)
    plan = Plan("svd", 0.4, budget=budget, include=("convs.0", "convs.1"))
    aware, report = compress(model, Plan(**{**vars(plan), "options": {"data_aware": True}}), calibration=moments)
    plain, plain_report = compress(model, plan, calibration=moments)
    wanted = model(*data[0])
    assert float((aware(*data[0]) - wanted).detach().norm()) < float((plain(*data[0]) - wanted).detach().norm())
    errors, plain_errors = ({row.path: row.output_error for row in rows} for rows in (report, plain_report))
    assert sum(errors[path] ** 2 for path in plan.include) < sum(plain_errors[path] ** 2 for path in plan.include)
    assert errors["output"] == 0 and errors["convs.2.weight"] is None


def test_reported_output_error_is_the_layers_own() -> None:
    model, data = net().double(), batches(2, dtype=torch.float64)
    small, report = compress(model, Plan("svd", None, include=("convs.0",), options={"rank": 8}),
                             calibration=calibration.collect(model, data))
    wanted, outputs = (torch.cat([one.convs[0](x).transpose(1, 2).flatten(0, 1) for x, in data]).detach()
                       for one in (model, small))
    error = (outputs - wanted).square().sum() / wanted.square().sum()
    assert next(row.output_error for row in report if row.path == "convs.0") == pytest.approx(float(error.sqrt()))


@pytest.mark.parametrize("budget", [None, "uniform", "global_greedy", "alds"])
def test_data_aware_without_data_is_a_user_error(budget: str | None) -> None:
    options = {"data_aware": True, **({} if budget else {"rank": 4})}
    with pytest.raises(UserError, match=r"convs.0: data_aware needs calibration data: give .* --calibrate DATA"):
        compress(net(), Plan("svd", 0.9 if budget else None, options, budget or "uniform"))


def test_from_the_command_line(tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests import prepared

    torch.manual_seed(0)
    stack = [{"dim": 32, "taps": 3, "stride": 2, "repeat": 2}]
    save_model(tmp_path / "dense", models.build({"model": "tdnn", "features": 80, "vocab": 24, "stack": stack}))
    call = ["compress", "--model", str(tmp_path / "dense"), "--out", str(tmp_path / "small"), "structure=svd",
            "size=0.6",
            "structure.data_aware=true"]
    data = ["--calibrate", str(prepared.data(tiny_corpus))]
    assert cli.main([*call, *data]) == 0
    assert "of outputs" in capsys.readouterr().out
    (tmp_path / "small").unlink()
    for more, said in (([], "data_aware needs calibration data"),
                       ([*data, "--calibrate-set", "moon"], "moon.jsonl.gz does not exist"),
                       ([*data, "--calibrate-minutes", "0"], "no utterance to calibrate on")):
        assert cli.main([*call, *more]) == 1
        assert said in capsys.readouterr().err and not (tmp_path / "small").exists()


def test_without_data_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    stack = [{"dim": 16, "taps": 3, "stride": 2, "repeat": 2}]
    save_model(tmp_path / "dense", models.build({"model": "tdnn", "features": 80, "vocab": 24, "stack": stack}))
    call = ["compress", "--model", str(tmp_path / "dense"), "structure=dense", "--out",
            str(tmp_path / "small"), "quantization=int8", "--activations", "int8"]
    free = ["--data-free", "gaussian", "--calibrate-minutes", "0.1"]
    assert cli.main([*call, *free, "--distil", "2"]) == 0
    assert "activations int8: the inputs of 3 layers" in capsys.readouterr().out
    small = load(tmp_path / "small")
    assert set(activations.entries(small)) == {"layers.0.conv", "layers.1.conv", "output"}
    assert cli.main(["packed", "save", "--model", str(tmp_path / "small"), "--out", str(tmp_path / "m.packed")]) == 0
    assert activations.entries(load(tmp_path / "m.packed")) == activations.entries(small)
    (tmp_path / "small").unlink()
    for more, said in (([], "--activations needs something to run the model on"),
                       ([*free[:3], "0"], "minutes of synthetic features are none")):
        assert cli.main([*call, *more]) == 1
        assert said in capsys.readouterr().err and not (tmp_path / "small").exists()


def test_inputs_of_compressed_layers_are_seen_too() -> None:
    model, batches = classifier(), seen_batches()
    small, _ = compress(copy.deepcopy(model), "svd", size=0.8, include="0")
    ours: Any = calibration.collect(small, batches)["0"]
    torch.testing.assert_close(ours, calibration.collect(model, batches)["0"])
