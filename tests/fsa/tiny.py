"""A language small enough to enumerate: four tokens, three words of which two sound the same, and language models."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asrcompress.decoding.archive import ArchiveWriter
from asrcompress.lang.tokens import collapse

TOKENS = ["<blk>", "a", "b", "c"]
LEXICON = [("AB", ["a", "b"]), ("HEAR", ["c"]), ("HERE", ["c"])]  # HEAR and HERE are homophones
WORDS = ["<eps>", "AB", "HEAR", "HERE", "#0", "<s>", "</s>"]
UNIGRAM = {("<s>",): (-99.0, 0.0), ("AB",): (-0.4, 0.0), ("HEAR",): (-0.9, 0.0), ("HERE",): (-0.5, 0.0),
           ("</s>",): (-0.6, 0.0)}
BIGRAM = {("<s>",): (-99.0, -0.2), ("AB",): (-0.4, -0.3), ("HEAR",): (-0.9, -0.1), ("HERE",): (-0.5, -0.4),
          ("</s>",): (-0.6, 0.0), ("<s>", "HEAR"): (-0.2, 0.0), ("AB", "HERE"): (-0.3, 0.0),
          ("AB", "</s>"): (-0.15, 0.0), ("HEAR", "AB"): (-0.25, 0.0), ("HERE", "HEAR"): (-0.1, 0.0)}
# A small model that has seen each word go on, so that its graph keeps both homophones for rescoring.
SMALL = {**UNIGRAM, ("AB", "</s>"): (-0.5, 0.0), ("HEAR", "</s>"): (-0.6, 0.0), ("HERE", "</s>"): (-0.55, 0.0)}
Model = dict[tuple[str, ...], tuple[float, float]]  # n-gram -> log10 of probability and of back-off weight


def write_lang(folder: Path, lexicon: list[tuple[str, list[str]]] = LEXICON) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, symbols in (("tokens.txt", TOKENS), ("words.txt", WORDS)):
        (folder / name).write_text("".join(f"{symbol} {i}\n" for i, symbol in enumerate(symbols)))
    (folder / "lexicon.txt").write_text("".join(f"{word} {' '.join(tokens)}\n" for word, tokens in lexicon))
    return folder


def write_arpa(path: Path, model: Model) -> Path:
    orders = [[gram for gram in model if len(gram) == n] for n in (1, 2) if any(len(gram) == n for gram in model)]
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(orders, 1))]
    for n, grams in enumerate(orders, 1):
        lines.append(f"\n\\{n}-grams:")
        lines += [f"{model[gram][0]} {' '.join(gram)} {model[gram][1] if n == 1 else ''}" for gram in grams]
    path.write_text("\n".join([*lines, "\n\\end\\\n"]))
    return path


def write_archive(path: Path, utterances: dict[str, np.ndarray]) -> Path:
    with ArchiveWriter(path, len(TOKENS), {"frame_seconds": 0.04}) as archive:
        for utt, log_probs in utterances.items():
            archive.add(utt, log_probs)
    return path


def random_posteriors(frames: int, seed: int) -> np.ndarray:
    """Log-posteriors (T, 4), rounded to float16 as an archive does."""
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(4), frames)).astype(np.float16).astype(np.float64)


def sentence_score(model: Model, words: tuple[str, ...]) -> float:
    """Natural log of the best way through the back-off automaton: an n-gram, or back-off even where there is one."""
    total, history = 0.0, "<s>"
    for word in (*words, "</s>"):
        ways = [model[(word,)][0] + model.get((history,), (0.0, 0.0))[1]]
        if (history, word) in model:
            ways.append(model[(history, word)][0])
        total += max(ways)
        history = word
    return total * math.log(10)


def spellings(tokens: list[int], lexicon: list[tuple[str, list[str]]] = LEXICON) -> Iterator[tuple[str, ...]]:
    """Every word sequence that is pronounced like `tokens`."""
    if not tokens:
        yield ()
    for word, pronunciation in lexicon:
        ids = [TOKENS.index(token) for token in pronunciation]
        if tokens[:len(ids)] == ids:
            for rest in spellings(tokens[len(ids):], lexicon):
                yield (word, *rest)


def enumerate_best(log_probs: np.ndarray, model: Model, scale: float = 1.0) -> tuple[float, list[str]]:
    """The best score and its words over every path of tokens (4 ** T) and every spelling of each."""
    best = (-math.inf, [""])
    for path in itertools.product(range(len(TOKENS)), repeat=len(log_probs)):
        acoustic = scale * sum(row[token] for row, token in zip(log_probs, path, strict=True))
        for words in spellings(collapse(path)):
            best = max(best, (acoustic + sentence_score(model, words), list(words)))
    return best
