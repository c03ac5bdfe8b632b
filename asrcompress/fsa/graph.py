"""HLG, the decoding graph, and G, the language model for rescoring, from a lang folder and an ARPA file.

H is the CTC topology, L the lexicon, G the n-gram (Mohri, Pereira and Riley 2002, doi:10.1006/csla.2001.0184).
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import k2
import kaldilm

from asrcompress.errors import UserError
from asrcompress.fsa.lexicon import Lang, lexicon_fst
from asrcompress.lang import ngram


def grammar_fst(arpa: Path, words: dict[str, int], max_order: int) -> tuple[k2.Fsa, ngram.Kept]:
    """G as a transducer from words to words, arc-sorted: back-off arcs read #0 and write nothing.

    Also what was kept: n-grams with words outside `words` are left out. A gzipped ARPA is unpacked on the way.
    """
    with tempfile.TemporaryDirectory() as folder:
        arpa_kept, table = Path(folder, "kept.arpa"), Path(folder, "words.txt")
        kept = ngram.restrict(arpa, arpa_kept, words, max_order)
        table.write_text("".join(f"{word} {number}\n" for word, number in words.items()), encoding="utf-8")
        with _quiet():
            text = kaldilm.arpa2fst(str(arpa_kept), disambig_symbol="#0", read_symbol_table=str(table))
    return k2.arc_sort(k2.Fsa.from_openfst(text, acceptor=False)), kept


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without kaldilm's progress lines, which C++ writes to the error stream."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def compile_lg(lexicon: k2.Fsa, grammar: k2.Fsa, lang: Lang) -> k2.Fsa:
    """Determinised L o G without disambiguation symbols or epsilons; any number of words an arc.

    Of several ways to get from one state to another on epsilons alone, k2 keeps the best. So the lexicon's symbols
    are removed first and back-off after them: together they would leave one of two homophones wherever both back off,
    and rescoring could not choose the other. Only homophones that no longer n-gram goes on from still share a fate.
    """
    graph = k2.connect(k2.determinize(k2.connect(k2.compose(lexicon, grammar))))
    back_off = len(lang.tokens)
    for first in (back_off + 1, back_off):
        replace_labels(graph, first)
        graph = k2.connect(k2.remove_epsilon(graph))
    graph.aux_labels = graph.aux_labels.remove_values_eq(0)
    return k2.arc_sort(graph)


def replace_labels(graph: k2.Fsa, first: int) -> None:
    """Turn the labels from `first` on into epsilon, in place."""
    labels = graph.labels.clone()  # k2 refuses a graph whose own label tensor was written to
    labels[labels >= first] = 0
    graph.labels = labels
    graph.__dict__["_properties"] = None  # k2 would go on believing what it knew of the old labels


def compile_hlg(lang: Lang, grammar: k2.Fsa) -> k2.Fsa:
    """HLG: token ids (0 is the blank, a label like any other) to words, arc-sorted.

    Errors: UserError where lexicon and grammar share no sentence.
    """
    lg = compile_lg(lexicon_fst(lang), grammar, lang)
    if lg.num_arcs == 0:
        raise UserError("the lexicon and the language model share no sentence; check that both hold the same words")
    topology = k2.ctc_topo(len(lang.tokens) - 1, modified=False)
    graph = k2.connect(k2.compose(topology, lg))
    return k2.arc_sort(graph)


def rescoring_grammar(grammar: k2.Fsa, first_disambig: int) -> k2.Fsa:
    """G as an acceptor of words whose back-off arcs are epsilons, with epsilon self-loops: what rescoring needs.

    A lattice may then back off where an n-gram exists, when that scores better; kaldi's G does the same.
    """
    acceptor = k2.Fsa(grammar.arcs.values().clone())
    replace_labels(acceptor, first_disambig)
    return k2.arc_sort(k2.add_epsilon_self_loops(acceptor))


def arcs_and_states(graph: k2.Fsa) -> str:
    """The size of a graph in words, for the log."""
    states = int(graph.arcs.values()[:, :2].max()) + 1 if graph.num_arcs else 0
    return f"{graph.num_arcs} arcs, {states} states"
