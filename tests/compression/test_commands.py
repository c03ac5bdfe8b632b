"""`asrcompress compress` and `asrcompress packed`, as a recipe calls them."""

from pathlib import Path

import pytest
import torch

from asrcompress import cli, models
from asrcompress.compression import load, packed, save_model

TDNN = {"model": "tdnn", "features": 80, "vocab": 24, "stack": [{"dim": 64, "taps": 3, "stride": 2, "repeat": 2}]}

CONFORMER = {"model": "conformer", "features": 80, "vocab": 24, "dim": 16, "heads": 2, "hidden": 32, "kernel": 3,
             "blocks": 1, "front": 12}


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "dense.safetensors", models.build(TDNN))
    return tmp_path / "dense.safetensors"


def test_compress_then_pack_then_list(dense: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, file = dense.with_name("small.safetensors"), dense.with_name("small.packed")
    assert cli.main(["compress", "--model", str(dense), "--out", str(small), "structure=svd", "size=0.5"]) == 0
    assert cli.main(["packed", "save", "--model", str(small), "--out", str(file)]) == 0
    assert cli.main(["packed", "info", str(file)]) == 0
    text = capsys.readouterr().out
    assert "layers.1.conv" in text and "loaded again" in text and f"{file.stat().st_size:,}" in text
    x, lens = torch.randn(1, 40, 80), torch.tensor([40])
    torch.testing.assert_close(packed.load(file)(x, lens)[0], load(small)(x, lens)[0], rtol=1e-4, atol=1e-4)


def test_smoothed_int8_of_a_conformer_and_what_packing_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    files = {name: str(tmp_path / name) for name in ("m.safetensors", "small.safetensors", "small.packed")}
    save_model(files["m.safetensors"], models.build(CONFORMER))
    words = ["compress", "--model", files["m.safetensors"], "--out", files["small.safetensors"], "--smooth",
             "--data-free", "gaussian", "--calibrate-minutes", "0.5", "quantization=int8"]
    assert cli.main(words) == 1 and "give --activations int8 too" in capsys.readouterr().err
    assert cli.main([*words, "--activations", "int8"]) == 0
    assert cli.main(["packed", "save", "--model", files["small.safetensors"], "--out", files["small.packed"]]) == 0
    assert "4 LayerNorms keep gain and bias; blocks.0.ff1.norm, since blocks.0.ff1.up: its inputs are rounded" in (
        capsys.readouterr().out)
    given, small = load(files["m.safetensors"]), packed.load(files["small.packed"])
    name = "blocks.0.attention.norm.weight"
    assert not torch.equal(small.get_parameter(name), given.get_parameter(name))
    x, lens = torch.randn(1, 80, 80), torch.tensor([80])
    torch.testing.assert_close(small(x, lens)[0], given(x, lens)[0], rtol=0, atol=0.2)


def test_bad_input_is_one_sentence_exit_1_and_no_file(dense: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = dense.with_name("out")
    damaged = dense.with_name("damaged.packed")
    packed.save(damaged, load(dense))
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    compress = ["compress", "--out", str(out), "--model"]
    for command, said in (
        ([*compress, str(dense), "structure=svd", "size=0.001"], "cannot be reached with structure svd; the "
                                                                 "smallest is"),
        ([*compress, str(dense), "structure=magic"], "magic"),
        ([*compress, str(dense), "structure=svd", "structure.rank_multiple=0"], "at least 1"),
        ([*compress, str(damaged)], "checksum"),
        ([*compress, str(dense.with_name("none"))], "does not exist"),
        (["packed", "info", str(damaged)], "checksum"),
        (["packed", "info", str(dense)], "not a packed model file"),
        (["packed", "save", "--model", str(damaged), "--out", str(out)], "checksum"),
    ):
        assert cli.main(command) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not out.exists()


@pytest.mark.parametrize("options", [["--distil", "9"], ["--activations", "int8"], ["--smooth"], ["--plot", "x.png"],
                                     ["--structures-only"]])
def test_fit_steps_refuses_what_it_would_ignore(options: list[str], tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compress", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--target", "9",
             "--fit-steps"]
    assert cli.main([*words, *options]) == 1  # before it reads the model
    assert "leave --distil, --activations, --smooth, --plot and --structures-only away" in capsys.readouterr().err
