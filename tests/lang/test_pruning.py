"""Pruning by weighted differences, against a program that goes word by word over dictionaries."""

import gzip
import math
import random
from itertools import product
from pathlib import Path

import pytest

from asrcompress.cli import main
from asrcompress.errors import UserError
from asrcompress.lang import backoff, pruning
from asrcompress.lang.ngram import ngrams

Ngram = tuple[str, ...]
Entries = dict[Ngram, tuple[float, float]]  # log10 probability, back-off weight


def random_model(seed: int, order: int = 3, words: int = 6) -> Entries:
    """A model whose contexts sum to anything, also above 1; prefixes are listed, suffixes need not be."""
    draw = random.Random(seed)
    vocabulary = ["<s>", "</s>", *(f"W{i}" for i in range(words))]
    model: Entries = {(word,): (-99.0 if word == "<s>" else math.log10(draw.uniform(0.02, 0.3)),
                                -draw.uniform(0, 1)) for word in vocabulary}
    for n in range(2, order + 1):
        contexts = [ngram for ngram in model if len(ngram) == n - 1 and ngram[-1] != "</s>"]
        for context, word in product(contexts, vocabulary[1:]):
            if draw.random() < 0.4:
                model[*context, word] = math.log10(draw.uniform(0.01, 0.5)), -draw.uniform(0, 1) if n < order else 0.0
    return model


def write_arpa(path: Path, model: Entries) -> Path:
    orders = [[words for words in model if len(words) == n] for n in range(1, 1 + max(map(len, model)))]
    lines = ["\\data\\", *(f"ngram {n}={len(order)}" for n, order in enumerate(orders, 1))]
    for n, order in enumerate(orders, 1):
        lines.append(f"\n\\{n}-grams:")
        lines += [f"{model[words][0]} {' '.join(words)} {model[words][1] if n < len(orders) else ''}"
                  for words in order]
    path.write_text("\n".join([*lines, "\n\\end\\\n"]))
    return path


def score(model: Entries, words: Ngram) -> float:
    """log10 probability of the last word after the others."""
    if words in model:
        return model[words][0]
    return model.get(words[:-1], (0.0, 0.0))[1] + score(model, words[1:])


def brute_force(model: Entries, threshold: float, order: int) -> Entries:
    """IRSTLM's prune-lm, a context at a time: what stays of it is scaled and pruned again where it sums to one."""
    pruned: Entries = {words: entry for words, entry in model.items() if len(words) == 1}
    for n in range(2, order + 1):
        stay: Entries = {}
        for context in [words for words in pruned if len(words) == n - 1]:
            after = {words: p for words, (p, _) in model.items() if words[:-1] == context}
            if not after:
                continue  # the weight stays as it was
            weight = pruned[context][1]
            joint = sum(0.0 if i == 1 and context[0] == "<s>" else pruned[context[:i]][0] for i in range(1, n))
            while True:
                after = {words: p for words, p in after.items()
                         if 10 ** (joint + p) * (p - weight - score(pruned, words[1:])) > threshold}
                total = sum(10 ** p for p in after.values())
                if total < 1:
                    break
                after = {words: p + math.log10(0.999999 / total) for words, p in after.items()}
            below = sum(10 ** score(pruned, words[1:]) for words in after)
            new_weight = math.log10((1 - total) / (1 - below)) if below < 1 else 0.0
            pruned[context] = pruned[context][0], new_weight
            stay |= {words: (p, model[words][1]) for words, p in after.items()}
        pruned |= stay
    return pruned


def entries(path: Path) -> Entries:
    found = {}
    for n, fields in ngrams(path):
        found[tuple(fields[1:n + 1])] = float(fields[0]), float(fields[-1]) if len(fields) > n + 1 else 0.0
    return found


@pytest.mark.parametrize("seed", range(12))
def test_it_does_what_a_program_over_dictionaries_does(tmp_path: Path, seed: int) -> None:
    order, threshold = 2 + seed % 3, 10 ** -random.Random(seed).uniform(2, 4)
    model = random_model(seed, order)
    arpa = write_arpa(tmp_path / "whole.arpa", model)
    backoff.save(pruning.prune(backoff.read(arpa), threshold), tmp_path / "pruned.arpa")
    found, wanted = entries(tmp_path / "pruned.arpa"), brute_force(model, threshold, order)
    assert found.keys() == wanted.keys() and len(found) < len(model)
    for words, entry in wanted.items():
        assert found[words] == pytest.approx(entry, abs=2e-5), words


@pytest.mark.parametrize("seed", range(4))
def test_every_context_that_backs_off_sums_to_what_its_lower_order_does(tmp_path: Path, seed: int) -> None:
    """With normalised 1-grams, all contexts of the pruned model sum to one."""
    model = random_model(seed)
    total = sum(10 ** p for words, (p, _) in model.items() if len(words) == 1 and words != ("<s>",))
    model |= {words: (p - math.log10(total), b) for words, (p, b) in model.items()
              if len(words) == 1 and words != ("<s>",)}
    arpa = write_arpa(tmp_path / "whole.arpa", model)
    backoff.save(pruning.prune(backoff.read(arpa), 1e-3), tmp_path / "pruned.arpa")
    pruned = entries(tmp_path / "pruned.arpa")
    vocabulary = [words[0] for words in model if len(words) == 1 and words != ("<s>",)]
    contexts = {words[:-1] for words in pruned if len(words) > 1}
    assert any(len(context) == 2 for context in contexts)
    for context in contexts:
        assert sum(10 ** score(pruned, (*context, word)) for word in vocabulary) == pytest.approx(1, abs=1e-4)


def test_a_bigram_by_hand(tmp_path: Path) -> None:
    """p(A|B) = 0.4 against bo(B) p(A) = 0.5 * 0.2: D = 0.1 * 0.4 log10 4 = 0.0241."""
    model = {("<s>",): (-99.0, 0.0), ("A",): (math.log10(0.2), 0.0), ("B",): (-1.0, math.log10(0.5)),
             ("</s>",): (math.log10(0.7), 0.0), ("B", "A"): (math.log10(0.4), 0.0)}
    whole = backoff.read(write_arpa(tmp_path / "arpa", model))
    assert backoff.size(pruning.prune(whole, 0.024)) == 5 and backoff.size(pruning.prune(whole, 0.0242)) == 4
    kept = pruning.prune(whole, 0.024)
    assert 10 ** kept.orders[0].backoff[kept.words.index("B")] == pytest.approx(0.6 / 0.8)
    assert 10 ** pruning.prune(whole, 0.0242).orders[0].backoff[kept.words.index("B")] == pytest.approx(1)


def test_a_context_above_one_by_hand(tmp_path: Path) -> None:
    """0.9 + 0.3 is scaled to 0.75 + 0.25, with which B C is less likely than backing off says: 0.29. So it goes too."""
    model = {("<s>",): (-99.0, 0.0), ("A",): (math.log10(0.2), -0.5), ("B",): (-1.0, 0.0),
             ("C",): (math.log10(0.29), 0.0), ("</s>",): (math.log10(0.41), 0.0),
             ("B", "A"): (math.log10(0.9), 0.0), ("B", "C"): (math.log10(0.3), 0.0)}
    pruned = pruning.prune(backoff.read(write_arpa(tmp_path / "arpa", model)), 1e-4)
    names, weights = pruned.words, pruned.orders[0].backoff
    assert [[names[word] for word in words] for words in pruned.orders[1].words] == [["B", "A"]]
    assert 10 ** pruned.orders[1].p[0] == pytest.approx(0.75, rel=2e-6)
    assert 10 ** weights[names.index("B")] == pytest.approx(0.25 / 0.8, rel=5e-6)
    assert weights[names.index("A")] == -0.5  # nothing comes after A in the whole model: its weight is not ours to set


def test_the_threshold_for_a_number_of_ngrams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arpa = write_arpa(tmp_path / "whole.arpa", random_model(1, words=12))
    whole = backoff.read(arpa)
    pruned, threshold = pruning.prune_to(whole, 60)
    assert 30 < backoff.size(pruned) <= 60 < backoff.size(pruning.prune(whole, threshold * 0.98))
    out = tmp_path / "pruned.arpa.gz"
    assert main(["ngram", "--arpa", str(arpa), "--prune-to", "60", "--out", str(out)]) == 0
    assert gzip.decompress(out.read_bytes()).startswith(b"\\data\\") and len(entries(out)) == backoff.size(pruned)
    assert "pruned at" in capsys.readouterr().out
    assert main(["ngram", "--arpa", str(arpa), "--prune", str(threshold), "--out", str(tmp_path / "again.arpa")]) == 0
    assert len(entries(tmp_path / "again.arpa")) == backoff.size(pruned)


@pytest.mark.parametrize(("lines", "said"), [
    ("\\data\\\nngram 1=3\n\n\\1-grams:\n-99 <s>\n-1 A\n-1 </s>\n", "ends before"),
    ("\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-99 <s>\n-1 A\n-1 </s>\n\n\\2-grams:\n-1 A B\n\n\\end\\\n",
     "a 2-gram has the word 'B', which has no 1-gram"),
    ("\\data\\\nngram 1=4\n\n\\1-grams:\n-99 <s>\n-1 A\n-1 A\n-1 </s>\n\n\\end\\\n", "lists a 1-gram twice"),
])
def test_a_file_that_is_no_whole_model_is_a_sentence(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "bad.arpa").write_text(lines)
    with pytest.raises(UserError, match=said):
        backoff.read(tmp_path / "bad.arpa")


def test_numbers_that_cannot_be_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arpa = write_arpa(tmp_path / "whole.arpa", random_model(1))
    assert main(["ngram", "--arpa", str(arpa), "--prune-to", "3", "--out", str(tmp_path / "out")]) == 1
    assert "pruning to 3 n-grams is not possible" in capsys.readouterr().err
    for threshold in ("-1e-7", "nan"):
        assert main(["ngram", "--arpa", str(arpa), f"--prune={threshold}", "--out", str(tmp_path / "out")]) == 1
        assert f"{float(threshold)} is no threshold to prune at" in capsys.readouterr().err
    both = ["ngram", "--arpa", str(arpa), "--prune-to", "30", "--prune", "1", "--out", str(tmp_path / "out")]
    assert main(both) == 1 and not (tmp_path / "out").exists()
    assert "give one of --prune and --prune-to" in capsys.readouterr().err
