"""Bytes are those of the file, damage that of the outputs: against measurement, closed forms and the written file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import asrcompress
from asrcompress import cli, models
from asrcompress.compression import checks, load, modules, packed, quantization, save_model, target
from asrcompress.compression.choices import Ways
from asrcompress.compression.damage import Outputs
from asrcompress.compression.packed import writer
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Net, classifier, net, seen_batches

WAYS = Ways(sizes=(0.5, 0.2), quantizations=("float16", "int8", "int4", "epr"))
CONFORMER = {"model": "conformer", "features": 80, "vocab": 24, "dim": 32, "heads": 2, "hidden": 64, "kernel": 3,
             "blocks": 1, "front": 16}


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    return seen_batches()


@pytest.fixture(scope="module")
def table(batches: list[torch.Tensor]) -> target.Table:
    return target.Table(classifier(), batches, WAYS)


def test_predictions_rank_as_measurements_and_add_up(table: target.Table) -> None:
    assert len(table.checked) == target.CHECKED and table.rank_correlation > 0.95
    small, report = table.fit(table.dense_bytes // 8)
    assert sum(row.damage or 0 for row in report) == pytest.approx(table.outputs.divergence(small), rel=0.7)


@pytest.mark.parametrize("part", [3, 6, 10, 16])
def test_the_file_takes_the_target_and_is_what_was_compressed(part: int, table: target.Table, tmp_path: Path) -> None:
    wanted = table.dense_bytes // part
    small, report = table.fit(wanted)
    written = asrcompress.save(tmp_path / "x.packed", small, build=lambda config: classifier())
    size = (tmp_path / "x.packed").stat().st_size
    assert size == writer.length(small) and target.LEAST * wanted <= size <= wanted
    x = table.outputs.batches[0]
    torch.testing.assert_close(packed.load(tmp_path / "x.packed", lambda config: classifier())(x), written(x))
    stored = {row["name"]: row for row in packed.info(tmp_path / "x.packed")}
    for row in report:
        ours = [one for name, one in stored.items() if name.startswith(f"{row.path}.") and len(one["shape"]) > 1]
        assert {one["quantization"] for one in ours} == {row.quantization.split()[0]}
        assert {one["structure"] for one in ours} == {row.structure}
        assert sum(one["bytes"] for one in ours) <= (row.bytes or 0), "the smallest coder is no longer than range"


def test_more_bytes_do_less_damage_and_the_table_is_reproducible(table: target.Table, batches: list) -> None:
    found = [table.outputs.divergence(table.fit(table.dense_bytes // part)[0]) for part in (3, 6, 10, 16)]
    assert found == sorted(found)
    ways = Ways(structures=("dense",), quantizations=("int8", "int4"))
    again = [target.Table(classifier(), batches, ways).fit(20_000)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in {**again[0], **again[1]})


def test_no_uniform_choice_of_its_bytes_is_clearly_better(table: target.Table) -> None:
    for name, options in (("int8", {}), ("int4", {}), ("epr", {"bits": 3.0}), ("epr", {"bits": 2.0})):
        uniform = quantization.apply(table.model, name, **options)
        asrcompress.compression.record.set_coder(uniform, "smallest", vectors="float16")
        ours = table.fit(writer.length(uniform))[0]
        assert table.outputs.divergence(ours) < 1.05 * table.outputs.divergence(uniform), (name, options)


def test_what_was_compressed_before_keeps_its_structure(batches: list[torch.Tensor]) -> None:
    before, _ = asrcompress.compress(classifier(), "svd", size=0.5, exclude="4")
    found = target.Table(before, batches, Ways(structures=("dense",), quantizations=("int8", "epr")))
    small, report = found.fit(found.dense_bytes // 5)
    assert {path: one.name for path, one in modules.structured(small).items()} == {"0": "svd", "2": "svd"}
    assert {row.path: row.structure for row in report} == {"0": "svd", "2": "svd", "4": "dense"}
    assert writer.length(small) <= found.dense_bytes // 5


def test_a_kernel_that_is_a_small_tensor_decomposition_becomes_one(tmp_path: Path) -> None:
    model, generator = net(64), torch.Generator().manual_seed(0)
    with torch.no_grad():
        factors = [torch.randn(rows, 2, generator=generator) for rows in model.convs[1].weight.shape]
        model.convs[1].weight.copy_(torch.einsum("or,ir,kr->oik", *factors) / 8)
    names = {"dense", "svd", "tucker", "cp", "tensor_train"}
    batches = [torch.randn(2, 16, 40, generator=generator) for _ in range(2)]
    found = target.Table(model, batches, Ways(structures=tuple(sorted(names)), sizes=(0.1,), quantizations=("int8",)))
    assert {one.way.structure for one in found.measured["convs.1"]} == names
    wanted = found.dense_bytes // 6
    small, report = found.fit(wanted)
    assert {row.path: row.structure for row in report}["convs.1"] in names - {"dense", "svd"}
    written = asrcompress.save(tmp_path / "x.packed", small, build=Net)
    assert (tmp_path / "x.packed").stat().st_size <= wanted
    loaded = packed.load(tmp_path / "x.packed", Net)
    torch.testing.assert_close(loaded(batches[0]), written(batches[0]))


class Mixed(nn.Module):
    """An embedding tied with the output, a depthwise kernel, a kernel of two dimensions, an LSTM, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.image = nn.Embedding(30, 16), nn.Conv2d(1, 4, 3, padding=1)
        self.depthwise, self.lstm = nn.Conv1d(64, 64, 3, padding=1, groups=64), nn.LSTM(64, 24, batch_first=True)
        self.frozen, self.output = nn.Linear(24, 16), nn.Linear(16, 30, bias=False)
        self.output.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.image(self.embedding(tokens)[:, None]).permute(0, 2, 1, 3).flatten(2)
        x = self.lstm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))[0]
        return {"logits": self.output(torch.tanh(self.frozen(x)))}


def test_any_torch_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tokens = Mixed(), torch.randint(0, 30, (4, 20))
    small, report = asrcompress.compress(model, target_bytes=12_000, calibration=[(tokens,)], sizes=(0.5,),
                                         quantizations=("float16", "int8", "epr"))
    asrcompress.save(tmp_path / "x.packed", small, build=lambda config: Mixed())
    assert target.LEAST * 12_000 <= (tmp_path / "x.packed").stat().st_size <= 12_000
    loaded = packed.load(tmp_path / "x.packed", lambda config: Mixed())
    torch.testing.assert_close(loaded(tokens)["logits"], small(tokens)["logits"], atol=1e-3, rtol=1e-3)
    assert loaded.output.weight is loaded.embedding.weight
    assert {"embedding.weight", "depthwise.weight", "lstm.weight_ih_l0", "frozen"} <= {row.path for row in report}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_structures_of_a_model_in_half_precision_are_too(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first forward raised: what was fitted to weights times gains in float32 stayed float32."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).to(dtype), torch.randn(50, 64).to(dtype)
    compared: list[nn.Module] = []
    monkeypatch.setattr(checks, "layers", compared.append)
    small, report = asrcompress.compress(model, target_bytes=10_000, calibration=[x], structures=("svd",), sizes=(0.2,),
                                         quantizations=("int8",))
    assert small(x).dtype == dtype and {row.structure for row in report} == {"svd"}
    assert compared == [small], "as of any other compression"


@pytest.mark.parametrize("calibration", [torch.randn(4, 40), [torch.randn(40)]])
def test_one_tensor_is_examples_one_after_the_other(calibration: Any) -> None:
    small, _ = asrcompress.compress(classifier(), target_bytes=20_000, calibration=calibration, structures=("dense",),
                                    quantizations=("int8",))
    assert writer.length(small) <= 20_000


def test_the_smallest_file_within_a_loss(table: target.Table) -> None:
    def loss(model: nn.Module) -> float:
        return 1 + table.outputs.divergence(model)

    small, _ = table.within(0.01, loss)
    assert loss(small) <= 1.01 * loss(table.model)
    smaller, _ = table.fit(int(0.8 * writer.length(small)))
    assert loss(smaller) > 1.01 * loss(table.model), "seven halvings are nearer than a fifth"
    with pytest.raises(UserError, match="no smaller file keeps the loss within 1 %"):
        table.within(0.01, lambda model: 1.0 if model is table.model else 2.0)


def test_a_table_goes_on_where_it_was_stopped(batches: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(structures=("dense",), quantizations=("int8", "int4"))
    made, passes, measured, divergence = [], [], target.Table._measured, Outputs.divergence
    monkeypatch.setattr(target.Table, "_measured", lambda self, part: made.append(part.path) or measured(self, part))
    monkeypatch.setattr(Outputs, "divergence", lambda *args: passes.append(1) or divergence(*args))
    whole = target.Table(classifier(), batches, ways, cache=tmp_path / "choices")
    [file] = (tmp_path / "choices").iterdir()
    text, ran = file.read_text(), len(passes)
    same = target.Table(classifier(), batches, ways, cache=tmp_path / "choices")
    assert len(passes) == ran and sorted(made) == ["0", "2", "4"], "all is in the file"
    file.write_text(text[: text.index('["ways 4"') + 20])  # half a line is left
    again = target.Table(classifier(), batches, ways, cache=tmp_path / "choices")
    assert sorted(made) == ["0", "2", "4", "4"] and file.read_text() == text
    for one in (same, again):
        assert one.measured == whole.measured and one.form.scales == whole.form.scales and one.checked == whole.checked
    for damage in ("{", "[1]", "7"):
        file.write_text(damage + text[text.index("\n"):])
        with pytest.raises(UserError, match=f"{file}, line 1 is damaged"):
            target.Table(classifier(), batches, ways, cache=tmp_path / "choices")
    file.write_text(text)
    fewer = Ways(structures=("dense",), quantizations=("int8",))
    target.Table(classifier(), batches, fewer, cache=tmp_path / "choices")
    assert sorted(made[4:]) == ["0", "2", "4"], "of other choices, so made anew"
    assert file.read_text() == text and len(list((tmp_path / "choices").iterdir())) == 2, "in a file of their own"


def test_the_table_is_the_same_with_any_number_of_threads(batches: list, monkeypatch: pytest.MonkeyPatch) -> None:
    each: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", each.append)  # sums of torch's own threads differ in their last bits
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(target.Table(classifier(), batches, WAYS))
    assert found[0].measured == found[1].measured and found[0].checked == found[1].checked
    assert set(each[:-1]) == {1} and each[-1] == 3, "one thread for each worker, and all of them afterwards"


def test_a_weight_that_cannot_be_measured_stops_the_others(batches: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(self: target.Table, part: Any) -> None:
        raise UserError(f"{part.path} cannot")

    monkeypatch.setattr(target.Table, "_measured", measured)
    before = torch.get_num_threads()
    with pytest.raises(UserError, match="^0 cannot"):
        target.Table(classifier(), batches, WAYS)
    assert torch.get_num_threads() == before


def test_bad_input_is_a_sentence(table: target.Table, batches: list) -> None:
    with pytest.raises(CannotShrink, match=r"100 bytes cannot be reached; the smallest file .* takes [\d,]+"):
        table.fit(100)
    with pytest.raises(UserError, match="is more than the"):
        table.fit(table.dense_bytes + 1)
    with pytest.raises(UserError, match="there is none; calibrate on data or data-free"):
        target.Table(classifier(), [])
    with pytest.raises(UserError, match="no weight that could be stored in fewer bytes"):
        target.Table(nn.Sequential(nn.LayerNorm(40)), batches)
    with pytest.raises(UserError, match="target_bytes needs calibration"):
        asrcompress.compress(classifier(), target_bytes=9000)
    with pytest.raises(UserError, match="name what it may choose from"):
        asrcompress.compress(classifier(), "svd", target_bytes=9000, calibration=batches)
    for options, said in (({"structures": ("rank",)}, "no structure 'rank'"), ({"sizes": (1.5,)}, "below 1"),
                          ({"quantizations": ("int3",)}, "chooses from the quantizations"),
                          ({"structures": ("multi_hash",)}, "has one pool for all layers"),
                          ({"quantizations": ()}, "needs a structure and a quantization")):
        with pytest.raises(UserError, match=said):
            asrcompress.compress(classifier(), target_bytes=9000, calibration=batches, **options)


def test_the_yaml_file_says_the_defaults() -> None:
    from asrcompress.config import compose
    from asrcompress.options import make

    config = compose("target")
    assert config.pop("seed") == 0 and make(Ways, config, "target") == Ways()


def test_the_command_data_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, out, picture = (str(tmp_path / name) for name in ("m.safetensors", "small.packed", "x.png"))
    save_model(model, models.build(CONFORMER))
    words = ["compress", "--model", model, "--data-free", "gaussian", "--calibrate-minutes", "0.3"]
    chosen = ["sizes=[0.5]", "quantizations=[int8,int4]"]
    assert cli.main([*words, "--out", out, "--target", "1/6", "--plot", picture, *chosen]) == 0
    said = capsys.readouterr().out
    assert "rank correlation" in said and f"{Path(out).stat().st_size:,} bytes" in said
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert cli.main(["packed", "info", out]) == 0
    floats = str(tmp_path / "structures.safetensors")
    assert cli.main([*words, "--out", floats, "--target", "1/6", "--structures-only", *chosen]) == 0
    assert not quantization.attached(load(floats))
    assert modules.structured(load(floats)).keys() == modules.structured(load(out)).keys()
    before = Path(out).read_bytes()
    for more, sentence in ((["--at-most", "1%"], "needs the lang folder"), (["--target", "9", "--at-most", "1%"],
                           "give one"), (["--target", "9"], "cannot be reached"), (["--target", "x"], "it is bytes"),
                           (["--at-most", "1", "--lang", "x"], "it is percents"), (["--fit-steps"], "each goes with"),
                           (["--target", "1/6", "--fit-steps"], "leave the overrides away")):
        capsys.readouterr()
        assert cli.main([*words, "--out", out, *more, *chosen]) == 1
        assert sentence in capsys.readouterr().err and Path(out).read_bytes() == before


