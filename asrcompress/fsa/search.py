"""One-best search of posteriors over HLG, and rescoring of its lattices with a larger language model.

A path scores `acoustic scale * log-posterior + graph score`. The lattice keeps both, so that rescoring takes the small
language model's score out and puts the large one's in (the whole-lattice way of icefall and of kaldi's lmrescore).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import k2
import numpy as np
import torch

from asrcompress.decoding.archive import Archive
from asrcompress.options import require


@dataclass(frozen=True)
class Beams:
    """How wide to search. Beams are differences of scores, after the acoustic scale; active states are a frame's.

    Errors: UserError for what k2 would end the process on.
    """

    search: float = 20.0
    output: float = 8.0
    min_active: int = 30
    max_active: int = 7000

    def __post_init__(self) -> None:
        require(self.search > 0 and self.output > 0, f"beams of {self.search:g} to search (--search-beam) and "
                f"{self.output:g} for lattices (--output-beam): give numbers above 0, such as 20 and 8")
        require(self.max_active > 0, f"at most {self.max_active} states a frame (--max-active): give 1 or more, such "
                "as 7000")
        require(0 <= self.min_active < self.max_active, f"at least {self.min_active} states a frame (--min-active): "
                f"give 0 or more, and fewer than the most (--max-active), which is {self.max_active}")

    def wider(self) -> "Beams":
        """The beams of a second try: twice the search beam, four times the active states."""
        return replace(self, search=2 * self.search, max_active=4 * self.max_active)


class Searcher:
    """Searches one HLG, whose arcs' scores are the language model's, and rescores with `grammar` where it is given."""

    def __init__(self, graph: k2.Fsa, grammar: k2.Fsa | None = None, beams: Beams = Beams()) -> None:
        torch.set_num_threads(1)  # `jobs` share the cores, and OpenMP's threads do not survive a fork
        self.graph = k2.create_fsa_vec([graph])
        self.graph.lm_scores = graph.scores.clone()
        self.beams = beams
        self.grammar = None
        if grammar is not None:
            self.grammar = k2.create_fsa_vec([grammar])
            self.grammar.lm_scores = grammar.scores.clone()

    def lattices(self, log_probs: Sequence[np.ndarray], scale: float, blank_penalty: float = 0.0,
                 beams: Beams | None = None) -> k2.Fsa:
        """A lattice for each of `log_probs` (T, V); one without arcs where the search reached no end."""
        beams = beams or self.beams
        lengths = [len(rows) for rows in log_probs]
        batch = torch.zeros(len(lengths), max(lengths), log_probs[0].shape[1])
        for place, rows in zip(batch, log_probs, strict=True):
            place[:len(rows)] = torch.from_numpy(rows.astype(np.float32))
        batch[:, :, 0] -= blank_penalty
        segments = torch.tensor([[i, 0, length] for i, length in enumerate(lengths)], dtype=torch.int32)
        dense = k2.DenseFsaVec(batch * scale, segments)
        return k2.intersect_dense_pruned(self.graph, dense, beams.search, beams.output, beams.min_active,
                                         beams.max_active)

    def rescored(self, lattices: k2.Fsa) -> k2.Fsa:
        """The lattices with the scores of the large language model in place of the small one's."""
        acoustic = thinned(lattices)
        acoustic.scores = acoustic.scores - acoustic.lm_scores
        del acoustic.lm_scores
        # Epsilon self-loops on both sides let either move alone: the lattice on frames without a word, G on back-off.
        words = k2.add_epsilon_self_loops(k2.invert(acoustic))
        same_grammar = torch.zeros(words.shape[0], dtype=torch.int32)
        both = k2.intersect_device(self.grammar, words, same_grammar, sorted_match_a=True)
        both = k2.top_sort(k2.connect(k2.remove_epsilon_self_loops(both)))
        return k2.invert(both)


def thinned(lattices: k2.Fsa, most: int = 40_000) -> k2.Fsa:
    """The lattices without arcs of small posterior, at most about `most` arcs in all.

    Composition with a large language model multiplies arcs (here by 30): a wide lattice would take gigabytes.
    """
    for threshold in (1e-5, 1e-4, 1e-3, 1e-2):
        thin = k2.prune_on_arc_post(lattices, threshold, use_double_scores=True)
        if thin.num_arcs <= most:
            break
    return thin


def with_lm_scale(lattices: k2.Fsa, lm_scale: float) -> k2.Fsa:
    """The lattices with `acoustic score + lm_scale * language model score` on their arcs."""
    scaled = lattices.clone()
    scaled.scores = lattices.scores + (lm_scale - 1.0) * lattices.lm_scores
    return scaled


def with_acoustic_scale(lattices: k2.Fsa, before: float, scale: float, blank_penalty: float) -> k2.Fsa:
    """Lattices that were searched with the acoustic scale `before` and no penalty, with another scale and a penalty of
    the blank. Their best paths are those of a search with these, as far as the beam of the lattice held them."""
    scaled = lattices.clone()
    acoustic = (lattices.scores - lattices.lm_scores) / before - blank_penalty * (lattices.labels == 0)
    scaled.scores = scale * acoustic + lattices.lm_scores
    return scaled


def best_words(lattices: k2.Fsa) -> list[list[int] | None]:
    """Word ids of the best path of each lattice, None where it holds no path."""
    best = k2.shortest_path(lattices, use_double_scores=True)
    shape = best.arcs.shape()
    arcs = shape.remove_axis(1)  # utterances x arcs
    if isinstance(best.aux_labels, k2.RaggedTensor):
        of_arcs = shape.compose(best.aux_labels.shape)
        words = k2.RaggedTensor(of_arcs.remove_axis(1).remove_axis(1), best.aux_labels.values)
    else:
        words = k2.RaggedTensor(arcs, best.aux_labels)
    lengths = arcs.row_splits(1).diff().tolist()
    return [ids if length else None for ids, length in zip(words.remove_values_leq(0).tolist(), lengths, strict=True)]


def highest_word(graph: k2.Fsa) -> int:
    """The highest word id that the graph says."""
    words = graph.aux_labels
    return int((words.values if isinstance(words, k2.RaggedTensor) else words).max())


def batches(archive: Archive, utts: Iterable[str], frames: int) -> list[list[str]]:
    """Utterances in batches of at most `frames` frames, padding included, longest first."""
    out: list[list[str]] = []
    for utt in sorted(utts, key=lambda utt: (-archive.frames(utt), utt)):
        if out and archive.frames(out[-1][0]) * (len(out[-1]) + 1) <= frames:
            out[-1].append(utt)
        else:
            out.append([utt])
    return out
