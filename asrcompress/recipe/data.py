"""The stages before any model: corpus, features, lang folder, language models and graphs."""

from dataclasses import replace
from pathlib import Path

from asrcompress.data import corpora
from asrcompress.options import require
from asrcompress.recipe import commands
from asrcompress.recipe.settings import Settings
from asrcompress.recipe.stage import Stage

DATA = Path("data")


def with_sets(settings: Settings) -> Settings:
    """The settings with the corpus's own training and test sets where they name none.

    Errors: UserError where it has none.
    """
    if settings.train_sets and settings.test_sets:
        return settings
    train, test = corpora.get(settings.corpus_type).subsets(settings.corpus)
    found = replace(settings, train_sets=settings.train_sets or tuple(train),
                    test_sets=settings.test_sets or tuple(test))
    require(bool(found.train_sets and found.test_sets), f"{settings.corpus} holds no training or no test set; give "
            "another --corpus, or --train-sets and --test-sets")
    return found


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
    models = [model for model in _given(settings) if model]
    if not models:
        out = settings.lang / "lm"
        Stage(out, {}, {"the lang folder": settings.lang, **texts}).run(
            lambda: commands.here("ngram", "--utterance-ids", "--text", *texts.values(), "--words",
                                  settings.lang / "words.txt", "--out", out / "3-gram.arpa"), settings.redo)
    if settings.smooth_lm != "false":
        inputs = {path.name: path for path in models or [settings.lang / "lm" / "3-gram.arpa"]}
        Stage(settings.lang / "smooth", settings.named("smooth_lm"), inputs | texts).run(
            lambda: _smooth(settings, models, list(texts.values())), settings.redo)


def _given(settings: Settings) -> tuple[Path | None, Path | None]:
    """The language models that come with the corpus: for the search, and for rescoring."""
    found = corpora.get(settings.corpus_type).language_models(settings.corpus)
    return found.small, found.large if found.small else None


def _smooth(settings: Settings, models: list[Path], texts: list[Path]) -> None:
    """The corpus's language models with the trust in each order fitted to the training text."""
    only = ["--if-cut"] if settings.smooth_lm == "auto" else []
    for one in models:
        commands.here("ngram", "--arpa", one, "--smooth", *texts, "--utterance-ids", *only, "--out",
                      _smoothed(settings, one))


def _smoothed(settings: Settings, model: Path) -> Path:
    return settings.lang / "smooth" / model.name.removesuffix(".gz")


def language_models(settings: Settings) -> tuple[Path, Path | None]:
    """What the graphs are made of: (search, rescoring or None), smoothed ones where there are."""
    def best(model: Path) -> Path:
        use = settings.smooth_lm != "false" and _smoothed(settings, model).exists()
        return _smoothed(settings, model) if use else model

    small, large = _given(settings)
    return best(small) if small else settings.lang / "lm" / "3-gram.arpa", best(large) if large else None


def graph(settings: Settings) -> None:
    """HLG of the small language model and G of the large one, in the k2 environment."""
    small, large = language_models(settings)
    inputs = {"the lang folder": settings.lang, "the language model": small}
    inputs |= {"the large language model": large} if large else {}
    Stage(settings.graph, {}, inputs).run(lambda: _graph(settings), settings.redo)


def device_graph(settings: Settings) -> None:
    """HLG.fst for sherpa-onnx, beside the graph; for another beam it is written again."""
    Stage(settings.graph / "device", settings.named("device_beam"), {"the graph": settings.graph}).run(
        lambda: _graph(settings, "--device-fst", "--device-beam", settings.device_beam), settings.redo)


def _graph(settings: Settings, *words: object) -> None:
    small, large = language_models(settings)
    rescoring = ["--large", large] if large else []
    commands.in_k2("graph", "--lang", settings.lang, "--arpa", small, *rescoring, "--out", settings.graph, *words)
