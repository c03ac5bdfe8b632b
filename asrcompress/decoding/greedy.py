"""Greedy CTC search: the best token of each frame, repeats merged, blanks dropped (Graves et al., ICML 2006)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asrcompress.decoding.archive import Archive
from asrcompress.lang import lexicon, text
from asrcompress.options import require

WORD_START = "▁"  # sentencepiece puts it before the first piece of a word


def best_tokens(log_probs: np.ndarray, blank: int = 0) -> list[int]:
    """Log-posteriors (T, V) -> the collapsed best path, token ids without blanks."""
    path = log_probs.argmax(axis=1)
    changes = np.concatenate([[True], path[1:] != path[:-1]])[:len(path)]
    return path[changes & (path != blank)].tolist()


def greedy(archive: Archive, tokens: dict[str, int]) -> dict[str, str]:
    """Utterance -> its tokens, parted by spaces: the hypotheses of a token (phone) error rate.

    `tokens` is token -> id as in `tokens.txt`; the blank has id 0. Errors: UserError for those of another model.
    """
    require(len(tokens) == archive.dim, f"{archive.path} has {archive.dim} tokens, and tokens.txt of the lang folder "
            f"{len(tokens)}; give the lang folder that the model was trained with")
    names = {number: token for token, number in tokens.items()}
    return {utt: " ".join(names[token] for token in best_tokens(archive[utt])) for utt in archive.utts}


def bpe_words(pieces: Sequence[str]) -> str:
    """BPE pieces -> words: `▁THE ▁CA T` is `THE CAT`. Phones have no such inverse; their words need a graph."""
    return " ".join("".join(pieces).replace(WORD_START, " ").split())


def greedy_words(hypotheses: dict[str, str]) -> dict[str, str]:
    """`greedy` of a BPE model -> utterance -> words, for a word error rate without any language model."""
    return {utt: bpe_words(text.split()) for utt, text in hypotheses.items()}


def token_references(sentences: dict[str, str], lang: Path) -> dict[str, list[str]]:
    """Tokens of the first pronunciation of each word, of the utterances whose words all have one in the lexicon."""
    spoken = lexicon.read(lang / "lexicon.txt")
    references = {utt: words.split() for utt, words in sentences.items()}
    return {utt: [token for word in words for token in spoken[word][0]]
            for utt, words in references.items() if all(word in spoken for word in words)}


def write_scorable(out: Path, hypotheses: dict[str, str], ref: Path, lang: Path) -> str:
    """OUT/tokens.txt and OUT/ref.tokens.txt, for a token error rate: the utterances whose words all have a
    pronunciation, of which the reference takes the first. A sentence says how many they are."""
    references = text.read(ref)
    known = token_references(references, lang)
    text.write(out / "ref.tokens.txt", {name: " ".join(tokens) for name, tokens in known.items()})
    text.write(out / "tokens.txt", {name: tokens for name, tokens in hypotheses.items() if name in known})
    return f"{out}: {len(known)} of {len(references)} references have a pronunciation for every word"
