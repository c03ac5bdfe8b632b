"""HLG.fst read back by a reader written from OpenFst's own description of the format, and searched by enumeration."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest

k2 = pytest.importorskip("k2")
pytest.importorskip("kaldilm")

from asrcompress.fsa import openfst  # noqa: E402
from tests.fsa import tiny  # noqa: E402
from tests.fsa.test_graph import hlg_of  # noqa: E402
from tests.fsa.test_storage import several_words  # noqa: E402

State = tuple[float, list[tuple[int, int, float, int]]]


def read(path: Path) -> list[State]:
    """Final cost and (input, output, cost, target) arcs of each state."""
    data = path.read_bytes()
    assert data[:4] == struct.pack("<i", 2125659606)
    assert data[4:26] == b"\x06\0\0\0vector\x08\0\0\0standard"
    version, flags, properties, start, states, arcs = struct.unpack_from("<iiQqqq", data, 26)
    assert (version, flags, properties & 3, start) == (2, 0, 3, 0)
    place, out = 26 + struct.calcsize("<iiQqqq"), []
    for _ in range(states):
        final, count = struct.unpack_from("<fq", data, place)
        out.append((final, [struct.unpack_from("<iifi", data, place + 12 + 16 * i) for i in range(count)]))
        place += 12 + 16 * count
    assert place == len(data)
    assert sum(len(leaving) for _, leaving in out) == arcs
    return out


def best(states: list[State], log_probs: np.ndarray) -> tuple[float, list[int]]:
    """Viterbi with epsilons, over dictionaries; input label l reads column l - 1."""
    active = {0: (0.0, ())}
    for row in [*log_probs, None]:
        queue = list(active)
        while queue:  # epsilons
            state = queue.pop()
            for label, word, cost, target in states[state][1]:
                way = (active[state][0] - cost, active[state][1] + (word,) * (word > 0))
                if label == 0 and way[0] > active.get(target, (-math.inf,))[0]:
                    active[target] = way
                    queue.append(target)
        if row is None:
            break
        following: dict[int, tuple[float, tuple[int, ...]]] = {}
        for state, (score, words) in active.items():
            for label, word, cost, target in states[state][1]:
                if label and score - cost + row[label - 1] > following.get(target, (-math.inf,))[0]:
                    following[target] = (score - cost + row[label - 1], words + (word,) * (word > 0))
        active = following
    return max((score - states[state][0], list(words)) for state, (score, words) in active.items())


@pytest.mark.parametrize("model", [tiny.UNIGRAM, tiny.BIGRAM], ids=["unigram", "bigram"])
def test_the_file_stands_for_the_same_graph(tmp_path: Path, model: tiny.Model) -> None:
    path = tmp_path / "HLG.fst"
    size = openfst.write_openfst(path, hlg_of(tmp_path, model))
    assert size == path.stat().st_size
    states = read(path)
    for seed in range(8):
        log_probs = tiny.random_posteriors(5, seed)
        score, ids = best(states, log_probs)
        expected, words = tiny.enumerate_best(log_probs, model)
        assert score == pytest.approx(expected, abs=1e-3)
        assert [tiny.WORDS[i] for i in ids] == words


def test_several_words_on_an_arc(tmp_path: Path) -> None:
    """0 -> 1 reads 0 and says 7 8, or reads 2 and says nothing; 1 loops on 3 and says 9; 1 ends with -2."""
    openfst.write_openfst(tmp_path / "x.fst", several_words())
    states = read(tmp_path / "x.fst")
    rows = np.log(np.eye(4)[[0, 3, 3]] + 1e-30)
    score, words = best(states, rows)
    assert words == [7, 8, 9, 9]
    assert score == pytest.approx(-0.5 - 1.5 - 1.5 - 2, abs=1e-4)


def test_kaldifst_reads_it(tmp_path: Path) -> None:
    kaldifst = pytest.importorskip("kaldifst")  # where one environment serves both
    openfst.write_openfst(tmp_path / "x.fst", several_words())
    assert kaldifst.StdVectorFst.read(str(tmp_path / "x.fst")).num_states == len(read(tmp_path / "x.fst"))


def test_another_beam_scales_every_cost(tmp_path: Path) -> None:
    hlg = hlg_of(tmp_path, tiny.BIGRAM)
    openfst.write_openfst(tmp_path / "16.fst", hlg)
    openfst.write_openfst(tmp_path / "20.fst", hlg, beam=20)
    graphs = [read(tmp_path / name) for name in ("16.fst", "20.fst")]
    for (final, arcs), (scaled_final, scaled_arcs) in zip(*graphs, strict=True):
        assert scaled_final == pytest.approx(0.8 * final)
        for (read_in, word, cost, target), scaled in zip(arcs, scaled_arcs, strict=True):
            assert scaled == (read_in, word, pytest.approx(0.8 * cost), target)
