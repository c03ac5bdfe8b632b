"""The stages before any model: corpus, features, lang folder, language models and graphs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from asrcompress.data import corpora
from asrcompress.data.prepare import check_roles
from asrcompress.options import require
from asrcompress.recipe import commands
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.stage import Stage

DATA = Path("data")


def with_corpus(settings: Settings) -> Settings:
    """The settings with the corpus's own sets and searches where they name none.

    Errors: UserError where it has no set, for a set in a wrong role, and for a search that it has not.
    """
    there = ["greedy", *(search.name for search in searches(settings))]
    for one in settings.searches:
        require(one in there, f"--searches is any of {', '.join(there)} with this corpus, not '{one}'")
    settings = replace(settings, searches=settings.searches or tuple(there))
    if not (settings.train_sets and settings.test_sets):
        train, test = corpora.get(settings.corpus_type).subsets(settings.corpus)
        settings = replace(settings, train_sets=settings.train_sets or tuple(train),
                           test_sets=settings.test_sets or tuple(test))
        require(bool(settings.train_sets and settings.test_sets), f"{settings.corpus} holds no training or no test "
                "set; give another --corpus, or --train-sets and --test-sets")
    check_roles(settings.train_sets, settings.test_sets)
    return settings


def download(settings: Settings) -> None:
    """Fetch the corpus into its folder. Errors: UserError where the network fails."""
    corpora.get(settings.corpus_type).download(settings.corpus, "mini" if settings.mini else "full")


def prepare(settings: Settings) -> None:
    """Manifests and features of every set, and the held-out set `dev`; sets that are there already are left alone."""
    first = settings.train_sets[0]

    def make() -> None:
        commands.here("prepare", "--corpus", settings.corpus, "--corpus-type", settings.corpus_type, "--train-sets",
                      " ".join(settings.train_sets), "--test-sets", " ".join(settings.test_sets), "--jobs", settings.nj,
                      "--held-out-minutes", settings.held_out_minutes, "--out", DATA)

    def clear() -> None:
        for manifest in DATA.glob("*.jsonl.gz"):
            manifest.unlink()

    options = {**settings.named("held_out_minutes", "corpus_type"), "--corpus": str(settings.corpus.resolve()),
               "the first of --train-sets": first}
    if not Stage(DATA / "fbank", options).run(make, settings.redo, clear):
        make()


def lang(settings: Settings) -> None:
    """Tokens, lexicon and words; the corpus's language models, smoothed if asked, or a trigram of the training text."""
    texts = {name: DATA / f"{name}.text" for name in settings.train_sets}
    lexicon = corpora.get(settings.corpus_type).lexicon(settings.corpus)
    Stage(settings.lang, settings.named("unit", "vocab_size"), {"the lexicon": lexicon, **texts}).run(
        lambda: commands.here("lang", "--unit", settings.unit, "--vocab-size", settings.vocab_size, "--lexicon",
                              lexicon, "--text", *texts.values(), "--out", settings.lang), settings.redo)
    for search in used(settings):
        if search.arpa == _own(settings):
            Stage(search.arpa.parent, {}, {"the lang folder": settings.lang, **texts}).run(
                lambda: commands.here("ngram", "--utterance-ids", "--text", *texts.values(), "--words",
                                      settings.lang / "words.txt", "--out", _own(settings)), settings.redo)
        elif settings.smooth_lm != "false":
            only = ["--if-cut"] if settings.smooth_lm == "auto" else []
            Stage(_smoothed(settings, search).parent, settings.named("smooth_lm"),
                  {"the language model": search.arpa, **texts}).run(
                partial(commands.here, "ngram", "--arpa", search.arpa, "--smooth", *texts.values(), "--utterance-ids",
                        *only, "--out", _smoothed(settings, search)), settings.redo)


def _own(settings: Settings) -> Path:
    """The trigram of the training text, for a corpus without a language model."""
    return settings.lang / "lm" / "3-gram.arpa"


def searches(settings: Settings) -> list[corpora.Search]:
    """The searches for words that the corpus offers; the first one chooses scales and is that of device files."""
    return (corpora.get(settings.corpus_type).searches(settings.corpus)
            or [corpora.Search("tgsmall", _own(settings))])


def first_graph(settings: Settings) -> Path:
    """The folder of the first search's graph."""
    return settings.graph(searches(settings)[0].name)


def used(settings: Settings) -> list[corpora.Search]:
    """The searches that the settings ask for, those that they rescore, and the first one."""
    every = {search.name: search for search in searches(settings)}
    asked = [every[name] for name in settings.searches if name != "greedy"]
    names = {next(iter(every)), *(search.name for search in asked), *(search.rescores for search in asked)}
    return [search for name, search in every.items() if name in names]


def _smoothed(settings: Settings, search: corpora.Search) -> Path:
    """The language model of a search with the trust in each order fitted to the training text, where that was done."""
    return settings.lang / "smooth" / search.name / search.arpa.name.removesuffix(".gz")


def graph(settings: Settings) -> None:
    """HLG of every search, G of one that rescores, in the k2 environment."""
    for search in used(settings):
        smooth = _smoothed(settings, search)
        model = smooth if settings.smooth_lm != "false" and smooth.exists() else search.arpa
        kind = ["--large", model, "--max-order", 4] if search.rescores else ["--arpa", model]
        out = settings.graph(search.name)
        Stage(out, {}, {"the lang folder": settings.lang, "the language model": model}).run(
            partial(commands.in_k2, "graph", "--lang", settings.lang, *kind, "--out", out), settings.redo)


def device_graph(settings: Settings) -> None:
    """HLG.fst for sherpa-onnx, beside the graph; for another beam it is written again."""
    first = first_graph(settings)
    Stage(first / "device", settings.named("device_beam"), {"the graph": first}).run(
        lambda: commands.in_k2("graph", "--lang", settings.lang, "--device-fst", "--device-beam", settings.device_beam,
                               "--out", first), settings.redo)
