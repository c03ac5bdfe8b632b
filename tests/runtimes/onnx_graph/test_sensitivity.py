from pathlib import Path

import kaldialign
import pytest
import torch

from asrcompress.cli import main
from asrcompress.decoding.greedy import best_tokens
from asrcompress.errors import UserError
from asrcompress.lang.tokens import read_symbols
from asrcompress.models.tdnn import TDNN
from asrcompress.runtimes.onnx_graph import parity, sensitivity
from asrcompress.runtimes.onnx_graph.options import Options
from tests import prepared
from tests.runtimes import tiny

WORST = "layers.2.conv.weight"
OPTIONS = Options(precision="int4")


def fragile(vocab: int) -> TDNN:
    """A channel of layer 1 is always 0, and layer 2 has huge weights for it: their steps are all that is quantized."""
    model = tiny.tdnn(vocab=vocab)
    with torch.no_grad():
        model.get_submodule("layers.1.conv").bias[:] = -1e4  # type: ignore[index]
        model.get_submodule("layers.1.conv").bias[:8] = 1.0  # type: ignore[index]
        model.get_submodule("layers.2.conv").weight[:, 8:] = 30.0  # type: ignore[index]
    return model


@pytest.fixture(scope="module")
def held_out(tiny_corpus: Path) -> sensitivity.HeldOut:
    lang = prepared.lang(tiny_corpus)
    model = fragile(len(read_symbols(lang / "tokens.txt")))
    return sensitivity.HeldOut(model, OPTIONS, prepared.data(tiny_corpus), "dev-quick", lang)


def test_the_error_is_that_of_greedy_tokens(held_out: sensitivity.HeldOut) -> None:
    wrong = 0
    for utt, wanted in held_out.references.items():
        with torch.inference_mode():
            log_probs, _ = held_out.model(*held_out.batches[utt])
        found = [held_out.symbols[token] for token in best_tokens(log_probs[0].numpy())]
        wrong += kaldialign.edit_distance(wanted, found)["total"]
    assert held_out.error == pytest.approx(100 * wrong / sum(map(len, held_out.references.values())))


def test_the_layer_that_cannot_be_quantized_ranks_first(held_out: sensitivity.HeldOut) -> None:
    ranking = held_out.ranking()
    assert sorted(name for name, _ in ranking) == sorted(held_out.products)
    divergences = [divergence for _, divergence in ranking]
    assert ranking[0][0] == WORST and divergences == sorted(divergences, reverse=True)
    assert divergences[0] > 2 * divergences[1]


def test_layers_are_left_out_until_the_loss_is_small(held_out: sensitivity.HeldOut,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lines = sensitivity.leave_out(held_out, 1000)
    assert kept == () and len(lines) == 1
    ranking = [name for name, _ in held_out.ranking()]
    losses = [held_out.loss(ranking[:count]) for count in range(len(ranking) + 1)]
    wanted = min(losses)
    kept, lines = sensitivity.leave_out(held_out, wanted)
    count = losses.index(wanted)
    assert list(kept) == ranking[:count] and len(lines) == count + 1
    with pytest.raises(UserError, match="even with every product in float"):
        sensitivity.leave_out(held_out, -1000)


def test_command(tiny_corpus: Path, held_out: sensitivity.HeldOut, tmp_path: Path,
                 capsys: pytest.CaptureFixture[str]) -> None:
    from asrcompress import compression

    compression.packed.save(tmp_path / "model.packed", held_out.model)
    command = ["export", str(tmp_path / "model.packed"), "--lang", str(prepared.lang(tiny_corpus)), "--out",
               str(tmp_path / "device"), "--data", str(prepared.data(tiny_corpus)), "--set", "dev-quick",
               "--precision", "int4", "--sensitivity-set", "dev-quick", "--max-loss", "1000", "--tolerance", "9"]
    assert main([*command, "--keep-float", WORST]) == 0
    said = capsys.readouterr().out
    assert f"token error of float32 {held_out.error:.2f} %; quantized" in said and "divergence" in said
    names = {one.name for one in parity.onnx.load(str(tmp_path / "device" / "model.onnx")).graph.initializer}
    assert f"{WORST}.float16" in names and "layers.1.conv.weight.int4" in names


def test_transcripts_need_pronunciations(tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("NOTHING N AH\n")
    with pytest.raises(UserError, match="no utterance of dev-quick has a pronunciation for every word"):
        sensitivity.references(prepared.data(tiny_corpus), "dev-quick", tmp_path)
