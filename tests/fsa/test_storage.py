from pathlib import Path

import pytest

k2 = pytest.importorskip("k2")

from asrcompress.errors import UserError  # noqa: E402
from asrcompress.fsa import storage  # noqa: E402


def several_words() -> "k2.Fsa":
    """A graph whose arcs have 2, 0, 1 and 1 output labels."""
    fsa = k2.Fsa.from_str("0 1 0 -0.5\n0 1 2 0.25\n1 1 3 -1.5\n1 2 -1 -2\n2")
    fsa.aux_labels = k2.RaggedTensor([[7, 8], [], [9], [-1]])
    return fsa


def one_word() -> "k2.Fsa":
    return k2.Fsa.from_str("0 1 5 6 -0.5\n1 2 -1 -1 0\n2", acceptor=False)


def acceptor() -> "k2.Fsa":
    return k2.Fsa.from_str("0 1 5 -0.5\n1 2 -1 0\n2")


@pytest.mark.parametrize("make", [several_words, one_word, acceptor])
def test_round_trip(tmp_path: Path, make) -> None:
    fsa = make()
    storage.save(tmp_path / "x.npz", fsa, "HLG")
    again = storage.load(tmp_path / "x.npz", "HLG")
    assert k2.to_str_simple(again) == k2.to_str_simple(fsa)
    assert again.arcs.values().tolist() == fsa.arcs.values().tolist()
    assert again.properties == fsa.properties
    assert hasattr(again, "aux_labels") == hasattr(fsa, "aux_labels")
    if make is several_words:
        assert again.aux_labels.tolist() == [[7, 8], [], [9], [-1]]
    elif make is one_word:
        assert again.aux_labels.tolist() == [6, -1]


def test_another_kind(tmp_path: Path) -> None:
    storage.save(tmp_path / "x.npz", one_word(), "G")
    with pytest.raises(UserError, match="is a graph of the kind G, expected HLG"):
        storage.load(tmp_path / "x.npz", "HLG")


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    storage.save(path, several_words(), "HLG")
    data = path.read_bytes()
    place = data.index(b"arcs.npy") + 150  # inside the numbers of the arcs
    for damaged in (b"", data[:len(data) // 2], data[:place] + bytes([data[place] ^ 1]) + data[place + 1:], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or not a graph"):
            storage.load(path, "HLG")
    with pytest.raises(UserError, match="does not exist"):
        storage.load(tmp_path / "y.npz", "HLG")
