"""The Conformer against numpy, its counts against the formula, and what an utterance must not see of another."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asrcompress
from asrcompress import config, models
from asrcompress.compression.folding import fold
from asrcompress.compression.smoothing import smooth
from asrcompress.errors import UserError
from asrcompress.measure.macs import macs
from asrcompress.models.conformer import Conformer, attend, rotate, rotation_of
from tests.models import contract
from tests.models.contract import batchnorm, features, shifted

SMALL = {"model": "conformer", "features": 80, "vocab": contract.VOCAB, "dim": 16, "heads": 2,
         "hidden": 24, "kernel": 5, "blocks": 3, "front": 12}
PARAMETERS = {"conformer": 4_085_704, "conformer_m": 9_421_864, "conformer_half": 2_038_120,
              "conformer_quarter": 998_904, "conformer_eighth": 504_664}


def model(**more: Any) -> Conformer:
    """A small net in eval mode."""
    return contract.build({**SMALL, **more})


def shipped(name: str) -> dict[str, Any]:
    return {**config.compose("train", [f"model={name}"])["model"], "vocab": 40}


@pytest.mark.parametrize("name", PARAMETERS)
def test_configs_that_ship_have_the_parameters_of_the_formula(name: str) -> None:
    said = shipped(name)
    net = models.build(said)
    d, f, k, n, c = (said[key] for key in ("dim", "hidden", "kernel", "blocks", "front"))
    formula = n * (4 * d * f + 7 * d * d + 2 * f + d * (k + 21)) + (400 * c + 2 * c + 3 * c * d + 2 * d) + (d + 1) * 40
    assert sum(p.numel() for p in net.parameters()) == formula == PARAMETERS[name]
    assert sum(p.numel() for p in fold(net).parameters()) == formula - (n * 9 * d + c + d)


def test_two_dimensional_front_end_has_the_parameters_of_the_formula() -> None:
    net = models.build({**shipped("conformer"), "front_end": "conv2d"})
    d, bins = 144, 80 // 4
    convolutions = 9 * (1 * 8 + 8 * 32 + 32 * 64)
    expected = convolutions + 2 * (8 + 32 + 64) + (64 * bins + 1) * d
    assert sum(p.numel() for p in net.front.parameters()) == expected == 205_480
    assert sum(p.numel() for p in fold(net).front.parameters()) == expected - (8 + 32 + 64)
    frames = 100  # of a second; 25 of output
    assert macs(net.front, torch.zeros(1, frames, 80), torch.ones(1, 1, frames)) == frames * 80 * 9 * 8 + (
        frames // 2 * 40 * 9 * 8 * 32 + 25 * 20 * 9 * 32 * 64 + 25 * 64 * bins * d)


def test_macs_of_layers_and_of_attention() -> None:
    net, frames = models.build(shipped("conformer")), 125
    d, f, k, n, c = 144, 576, 15, 8, 256
    layers = frames * (n * (4 * d * f + 7 * d * d + d * k) + 3 * c * d + d * 40) + 2 * frames * 400 * c
    assert macs(net, torch.zeros(1, 500, 80), torch.tensor([500])) == layers + n * 2 * frames * frames * d


def test_attention_in_bfloat16_is_that_of_torch() -> None:
    q, k, v = torch.randn(3, 2, 4, 7, 6, dtype=torch.float64, requires_grad=True).unbind()
    bias = torch.zeros(2, 1, 1, 7, dtype=torch.float64).index_fill_(3, torch.tensor([5, 6]), -1e4)
    exact = (q @ k.transpose(2, 3) / 6 ** 0.5 + bias).softmax(-1) @ v
    for kind, within in ((torch.bfloat16, 3e-2), (torch.float32, 1e-5)):
        torch.testing.assert_close(attend(*(one.to(kind) for one in (q, k, v, bias))).double(), exact, rtol=0,
                                   atol=within)


def normalised(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def affine(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("positions, name", [("rope", "silu"), ("none", "relu")])
@torch.inference_mode()
def test_against_numpy(positions: str, name: str) -> None:
    net = model(positions=positions, activation=name)
    w = {key: value.double().numpy() for key, value in net.state_dict().items()}
    act = (lambda x: x * sigmoid(x)) if name == "silu" else (lambda x: np.maximum(x, 0))
    x = features(1, 30)[0].double().numpy()
    y = x - x.mean(0)
    for i in range(2):
        kernel = w[f"front.{i}.conv.weight"]
        half = kernel.shape[2] // 2
        y = sum(shifted(y, k) @ kernel[:, :, k + half].T for k in range(-half, half + 1))[::2]
        y = np.maximum(batchnorm(y, w, f"front.{i}.batchnorm"), 0)
    frames, heads, size = len(y), 2, 8
    for b in range(3):
        def ff(y: np.ndarray, at: str) -> np.ndarray:
            return affine(act(affine(normalised(y, w, f"{at}.norm"), w, f"{at}.up")), w, f"{at}.down")

        y = y + 0.5 * ff(y, f"blocks.{b}.ff1")
        at = f"blocks.{b}.attention"
        u = normalised(y, w, f"{at}.norm")
        q, k, v = (affine(u, w, f"{at}.{part}").reshape(frames, heads, size) for part in ("query", "key", "value"))
        if positions == "rope":  # a complex number for each pair of halves, turned by its angle
            turn = np.exp(1j * np.arange(frames)[:, None, None] * 10000.0 ** (-2 * np.arange(size // 2) / size))
            q, k = ((part[..., : size // 2] + 1j * part[..., size // 2 :]) * turn for part in (q, k))
        scores = np.einsum("thi,shi->hts", q, k.conj()).real / math.sqrt(size)
        seen = np.exp(scores - scores.max(-1, keepdims=True))
        seen /= seen.sum(-1, keepdims=True)
        y = y + affine(np.einsum("hts,shi->thi", seen, v).reshape(frames, -1), w, f"{at}.out")
        at = f"blocks.{b}.convolution"
        one, gate = np.split(affine(normalised(y, w, f"{at}.norm"), w, f"{at}.pointwise_in"), 2, -1)
        gated, taps = one * sigmoid(gate), w[f"{at}.depthwise.weight"][:, 0]
        z = sum(shifted(gated, k) * taps[:, k + 2] for k in range(-2, 3))
        y = y + affine(act(batchnorm(z, w, f"{at}.batchnorm")), w, f"{at}.pointwise_out")
        y = normalised(y + 0.5 * ff(y, f"blocks.{b}.ff2"), w, f"blocks.{b}.norm")
    logits = affine(y, w, "output")
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(net(features(1, 30), torch.tensor([30]))[0][0].numpy(), expected, atol=2e-5)


@torch.inference_mode()
def test_two_dimensional_front_end_against_numpy() -> None:
    """A sum over the nine taps of frames and bins that are zero outside; strides keep those at 0, 2, 4, ..."""
    net = model(front_end="conv2d", features=10)
    w = {key.removeprefix("front."): value.double().numpy() for key, value in net.front.state_dict().items()}
    for frames in (1, 2, 3, 4, 5, 30):
        x = features(1, frames)[..., :10]
        y = x[0].double().numpy()[..., None]  # (T, F, C)
        for i, stride in enumerate((1, 2, 2)):
            padded = np.pad(y, ((1, 1), (1, 1), (0, 0)))
            taps = [(padded[a:, b:][: y.shape[0], : y.shape[1]] @ w[f"layers.{i}.conv.weight"][:, :, a, b].T)
                    for a in range(3) for b in range(3)]
            y = np.maximum(batchnorm(sum(taps)[::stride, ::stride], w, f"layers.{i}.batchnorm"), 0)
        expected = affine(y.reshape(len(y), -1), w, "out")
        assert expected.shape == (math.ceil(frames / 4), 16)
        found, mask = net.front(x, torch.ones(1, 1, frames))
        assert mask.shape == (1, 1, len(expected))
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.double), torch.randn(1, 1, 1, 8, dtype=torch.double)
    cos, sin = rotation_of(50, 8, torch.device("cpu"))
    q, k = rotate(q.expand(-1, -1, 50, -1), cos, sin), rotate(k.expand(-1, -1, 50, -1), cos, sin)
    scores = (q @ k.mT)[0, 0]
    for distance in (0, 3, -7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)


FRONTS = pytest.mark.parametrize("front_end", ["strided", "conv2d"])


@FRONTS
def test_a_batch_gives_what_its_utterances_give_one_by_one(front_end: str) -> None:
    contract.check_a_batch_gives_what_its_utterances_give_one_by_one(model(front_end=front_end))


@FRONTS
def test_an_utterance_of_no_frames_has_none_and_changes_no_other(front_end: str) -> None:
    contract.check_an_utterance_of_no_frames_has_none_and_changes_no_other(model(front_end=front_end))


@FRONTS
@torch.inference_mode()
def test_folding_changes_no_output(front_end: str) -> None:
    net, batch = model(front_end=front_end).double(), (features(2, 33).double(), torch.tensor([33, 20]))
    folded = fold(net)
    assert not list(folded.batchnorm_pairs()) and not list(folded.layernorm_pairs())
    seen, wanted = watched(folded, *batch), watched(net, *batch)  # the output itself is float32
    torch.testing.assert_close(seen, wanted, atol=1e-6, rtol=1e-6)


@torch.inference_mode()
def watched(net: Conformer, x: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """What goes into the log-softmax, in the precision of the net."""
    found: list[torch.Tensor] = []
    handle = net.output.register_forward_hook(lambda layer, args, output: found.append(output))
    net(x, lens)
    handle.remove()
    return found[0]


@torch.inference_mode()
@pytest.mark.parametrize("name", ["silu", "relu"])
def test_smoothing_changes_no_output(name: str) -> None:
    net, batch = model(activation=name).double(), (features(2, 33).double(), torch.tensor([33, 20]))
    smoothed = smooth(net, [batch])
    torch.testing.assert_close(watched(smoothed, *batch), watched(net, *batch), atol=1e-6, rtol=1e-6)
    moved = {path for path, weight in net.named_parameters() if not torch.equal(weight, smoothed.get_parameter(path))}
    parts = {"up.weight", "pointwise_in.weight", "value.weight", "out.weight", "query.weight", "key.weight"}
    assert parts <= {path.split(".", 3)[-1] for path in moved}
    assert ("blocks.0.ff1.down.weight" in moved) == (name == "relu")


def test_dropped_blocks_keep_the_mean() -> None:
    """With every branch linear in its scale, the mean over many draws is the whole; here: how often a block is left."""
    net = model(stochastic_depth=0.6, dropout=0.0)
    net.train()
    called = [0, 0, 0]
    for i, block in enumerate(net.blocks):
        block.register_forward_hook(lambda *_, i=i: called.__setitem__(i, called[i] + 1))
    torch.manual_seed(1)
    for _ in range(300):
        net(features(1, 9), torch.tensor([9]))
    np.testing.assert_allclose(np.array(called) / 300, [0.8, 0.6, 0.4], atol=0.09)
    net.eval()
    called[:] = [0, 0, 0]
    net(features(1, 9), torch.tensor([9]))
    assert called == [1, 1, 1]


def test_the_middle_has_outputs_where_they_are_asked_for() -> None:
    net = model(stochastic_depth=0.0, dropout=0.0)
    batch = features(2, 30), torch.tensor([30, 21])
    net(*batch)
    assert net.intermediate is None
    net.with_intermediate = True
    net(*batch)
    assert net.intermediate is not None and net.intermediate.shape == (2, 8, 9)
    torch.testing.assert_close(net.intermediate.exp().sum(-1), torch.ones(2, 8))


@FRONTS
@pytest.mark.parametrize("way", [{"structure": "svd", "size": 0.5}, {"quantization": "int8"}, {"quantization": "epr"},
                                 {"structure": "hashed", "size": 0.5}, {"structure": "tensor_train", "size": 0.6}])
def test_it_is_compressed_saved_loaded_and_exported(way: dict[str, Any], front_end: str, tmp_path: Path) -> None:
    net, batch = model(dim=32, hidden=64, front_end=front_end), (features(2, 41), torch.tensor([41, 30]))
    small, report = asrcompress.compress(net, **way)
    notes = {row.path: row.note for row in report}
    assert notes["blocks.0.convolution.depthwise.weight"] == "a depthwise convolution stays dense"
    asrcompress.save(tmp_path / "m.packed", small)
    loaded = asrcompress.load(tmp_path / "m.packed")
    with torch.inference_mode():
        torch.testing.assert_close(loaded(*batch)[0], small.eval()(*batch)[0], atol=1e-4, rtol=1e-4)
    asrcompress.export(loaded, tmp_path / "m.onnx")


@pytest.mark.parametrize("change, sentence", [
    ({"heads": 3}, r"heads \(3\) divide dim \(16\)"), ({"kernel": 4}, r"kernel \(4\) is odd"),
    ({"heads": 16}, "rotary positions need an even dim / heads, not 1"), ({"blocks": 0}, "blocks is 0"),
    ({"segments": 7}, "segments is 7; it is an even number"), ({"front_end": "conv3d"}, "front_end"),
    ({"dropout": 1.0}, "dropout is 1; it is from 0"), ({"positions": "relative"}, "positions"),
    ({"hiden": 3}, "no option 'hiden'; did you mean 'hidden'")])
def test_bad_configs_are_sentences(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.build({**SMALL, **change})
