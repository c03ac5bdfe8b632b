import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import yaml

from asrcompress import models
from asrcompress.errors import UserError
from asrcompress.models.tdnn import TDNN, Layer, PNorm
from tests.conftest import REPO
from tests.models import contract
from tests.models.contract import batchnorm, features, shifted

CONFIGS = sorted((REPO / "conf" / "model").glob("tdnn*.yaml"))
STACKS: dict[str, list[dict[str, int]]] = {
    "plain": [
        {"dim": 12, "taps": 5, "stride": 2},
        {"dim": 16, "taps": 3, "stride": 2},
        {"dim": 16, "taps": 3, "repeat": 2},
    ],
    "factored": [
        {"dim": 12, "taps": 5, "stride": 2},
        {"dim": 16, "taps": 3, "stride": 2},
        {"dim": 16, "taps": 3, "repeat": 2, "bottleneck": 5},
        {"dim": 16, "taps": 1, "bottleneck": 4},
        {"dim": 16, "taps": 3, "dilation": 2, "bottleneck": 6},
    ],
    "pnorm": [
        {"dim": 24, "taps": 9, "stride": 2, "pnorm": 4},
        {"dim": 24, "taps": 1, "stride": 2, "pnorm": 4},
        {"dim": 24, "taps": 2, "dilation": 2, "pnorm": 4},
    ],
}


def model(kind: str, **more: Any) -> TDNN:
    """A small net in eval mode."""
    return contract.build({"model": "tdnn", "features": 80, "vocab": contract.VOCAB, "bypass": 0.66,
                           "stack": STACKS[kind]} | more)


@pytest.mark.parametrize("kind", STACKS)
@torch.inference_mode()
def test_length_is_a_quarter_rounded_up(kind: str) -> None:
    net = model(kind)
    assert net.subsampling == 4
    for frames in range(1, 34):
        log_probs, lens = net(features(1, frames), torch.tensor([frames]))
        assert log_probs.shape == (1, math.ceil(frames / 4), 9) and lens.tolist() == [math.ceil(frames / 4)]
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, math.ceil(frames / 4)))


@pytest.mark.parametrize("kind", STACKS)
def test_a_batch_gives_what_its_utterances_give_one_by_one(kind: str) -> None:
    contract.check_a_batch_gives_what_its_utterances_give_one_by_one(model(kind))


@pytest.mark.parametrize("kind", STACKS)
def test_an_utterance_of_no_frames_has_none_and_changes_no_other(kind: str) -> None:
    contract.check_an_utterance_of_no_frames_has_none_and_changes_no_other(model(kind))


@torch.inference_mode()
def test_factored_topology_against_numpy() -> None:
    """linear over (t - d, t), affine over (t, t + d), BatchNorm, ReLU, + 0.66 x input; stride keeps frames 0, 2, 4."""
    net = model("factored", prefinal=7)
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}
    y = features(1, 30)[0].double().numpy()
    y = y - y.mean(0)
    rows = [row for row in STACKS["factored"] for _ in range(row.get("repeat", 1))]
    for i, row in enumerate(rows):
        conv, d = weights[f"layers.{i}.conv.weight"], row.get("dilation", 1)
        if "bottleneck" not in row:
            half = row["taps"] // 2
            out = sum(shifted(y, k * d) @ conv[:, :, k + half].T for k in range(-half, half + 1))
            out = out[:: row.get("stride", 1)]
        else:
            linear, offsets = weights[f"layers.{i}.linear.weight"], (0,) if row["taps"] == 1 else (0, d)
            # The linear half is also computed d frames before the first and after the last: pad, then cut.
            padded = np.pad(y, ((d, d), (0, 0)))
            low = sum(shifted(padded, -offset) @ linear[:, :, -1 - k].T for k, offset in enumerate(offsets))
            out = sum(shifted(low, offset) @ conv[:, :, k].T for k, offset in enumerate(offsets))[d:-d]
        out = np.maximum(batchnorm(out, weights, f"layers.{i}.batchnorm"), 0)
        y = out + 0.66 * y if out.shape == y.shape else out
    logits = y @ weights["prefinal.weight"].T @ weights["output.weight"].T + weights["output.bias"]
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(net(features(1, 30), torch.tensor([30]))[0][0].numpy(), expected, atol=2e-5)
    assert [layer.weight.shape for layer in net.semi_orthogonal()] == [(5, 16, 2), (5, 16, 2), (4, 16, 1), (6, 16, 2)]


@torch.inference_mode()
def test_pnorm_against_numpy() -> None:
    x = torch.randn(2, 12, 5)
    expected = np.stack([np.linalg.norm(x[:, i : i + 4].numpy(), axis=1) for i in (0, 4, 8)], 1)
    np.testing.assert_allclose(PNorm(4)(x).numpy(), expected - scipy.stats.chi(4).mean(), atol=1e-5)


def written(path: Path) -> dict[str, Any]:
    """What a file of conf/model says itself."""
    return {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"}


def parameters(config: dict[str, Any], vocab: int) -> int:
    """By hand: taps x in x out, or two halves of a bottleneck; two numbers a channel of BatchNorm; the output."""
    total, channels = 0, config["features"]
    for row in config["stack"]:
        for _ in range(row.get("repeat", 1)):
            dim, taps, b = row["dim"], row["taps"], row.get("bottleneck", 0)
            halves = 2 if taps > 1 else 1
            total += (channels * b * halves + b * dim * halves if b else channels * dim * taps) + 2 * dim
            channels = dim // row.get("pnorm", 1)
    last = config.get("prefinal", channels)
    return total + ("prefinal" in config) * channels * last + (last + 1) * vocab


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_that_ship_build_and_have_the_parameters_of_the_formula(path: Any) -> None:
    config = written(path)
    net = models.build(config | {"vocab": 40})
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == parameters(config, 40) and net.subsampling == 4
    low, high = {"tdnn": (9e6, 10e6), "tdnnf": (4e6, 6e6)}.get(path.stem, (0, 20e6))
    assert low <= count <= high


def test_small_control_has_the_size_of_svd_at_a_quarter() -> None:
    dense, small = (
        parameters(written(REPO / "conf" / "model" / f"{name}.yaml"), 40)
        for name in ("tdnn", "tdnn_small")
    )
    assert 0.24 < small / dense < 0.27


@pytest.mark.parametrize(("name", "parameters"), [("tdnn_wsj6", 4_974_040), ("tdnn_relu4", 5_768_040)])
def test_the_nets_of_the_study_see_ten_frames_to_either_side(name: str, parameters: int) -> None:
    """As Kaldi's splicing -4..4, 0, -2,2, 0, -4,4, 0 does."""
    config = yaml.safe_load((REPO / "conf" / "model" / f"{name}.yaml").read_text()) | {"vocab": 40}
    del config["defaults"]
    net = models.build(config).eval()
    assert sum(p.numel() for p in net.parameters()) == parameters
    x = torch.randn(1, 81, 80, requires_grad=True)
    net(x, torch.tensor([81]))[0][0, 10].sum().backward()
    assert x.grad is not None
    through_the_mean = x.grad[0, 0]  # the utterance's mean, which is taken off, is in every output
    seen = (x.grad[0] - through_the_mean).abs().amax(1).gt(1e-6).nonzero().flatten()
    assert int(seen[-1]) - int(seen[0]) == 20


def test_folded_config_builds_without_batchnorm() -> None:
    net, folded = model("factored"), model("factored", folded=True)
    pairs = list(net.batchnorm_pairs())
    assert pairs == [(f"layers.{i}.conv", f"layers.{i}.batchnorm") for i in range(6)]
    assert not list(folded.batchnorm_pairs()) and not any("batchnorm" in name for name in folded.state_dict())
    assert folded.get_submodule("layers.2.conv").bias is not None and net.get_submodule("layers.2.conv").bias is None
    assert folded(features(1, 9), torch.tensor([9]))[0].shape == (1, 3, 9)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"model": "rnn"}, "is no model family 'rnn'; there are conformer, tdnn"),
        ({"drop_out": 0.1}, "model tdnn has no option 'drop_out'; did you mean 'dropout'?"),
        ({"dropout": "much"}, "model tdnn: dropout is 'much'; it is a number"),
        ({"dropout": 1.5}, "dropout is 1.5; it is from 0 to below 1"),
        ({"features": 0}, "features are at least 1"),
        ({"vocab": None}, "model tdnn: vocab is None"),
        ({"stack": [{"taps": 3}]}, r"model tdnn: stack\[0\] lacks the option 'dim'"),
        ({"stack": [STACKS["plain"][0], {"dim": 8, "taps": 3, "dilatation": 2}]},
         r"model tdnn: stack\[1\] has no option 'dilatation'; did you mean 'dilation'\?"),
        ({"stack": [{"dim": 8, "taps": 0}]}, "taps of a row of the stack is 0; it is at least 1"),
        ({"stack": 3}, "model tdnn: stack is 3; it is a list, each a mapping of dim, taps"),
        ({"stack": [{"dim": 8, "taps": 2}]}, "not centred"),
        ({"stack": [{"dim": 10, "taps": 3, "pnorm": 4}]}, "do not divide dim 10"),
        ({"stack": [{"dim": 8, "taps": 3, "stride": 2, "bottleneck": 4}]}, "cannot have a stride"),
        ({"stack": [{"dim": 8, "taps": 5, "bottleneck": 4}]}, "has 1 or 3 taps, not 5"),
    ],
)
def test_bad_configs_are_sentences(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.build({"model": "tdnn", "features": 80, "vocab": 9, "stack": STACKS["plain"]} | change)
    with pytest.raises(UserError, match="model tdnn lacks the option 'stack'"):
        models.build({"model": "tdnn", "features": 80, "vocab": 9})


def test_bypass_needs_equal_shapes() -> None:
    kinds = {"same": (8, 8, {}), "wider": (8, 16, {}), "strided": (8, 8, {"stride": 2}), "pnorm": (8, 8, {"pnorm": 1})}
    found = {name: Layer(i, o, 3, bypass=0.5, **more).bypass for name, (i, o, more) in kinds.items()}
    assert found == {"same": 0.5, "wider": 0, "strided": 0, "pnorm": 0}
