"""recipes/wsj on an LDC-shaped miniature, and what dress.py makes of another corpus."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from asrcompress.lang import ngram
from asrcompress.report import rows as result_rows
from tests.conftest import REPO
from tests.recipe.test_recipe import OPTIONS, needs_k2
from tests.wsj_corpus import Miniature

MODEL = """\\data\\
ngram 1=3
ngram 2=2
ngram 3=1

\\1-grams:
-1\t<s>\t-0.2
-1\tA\t-0.1
-1\t</s>

\\2-grams:
-0.1\t<s> A\t-0.5
-0.2\tA </s>

\\3-grams:
-0.1\t<s> A </s>

\\end\\
"""
RUN, DRESS = REPO / "recipes" / "wsj" / "run.sh", REPO / "recipes" / "wsj" / "dress.py"


def recipe(discs: Path, folder: Path, **options: object) -> subprocess.CompletedProcess:
    given = {"wsj0": discs, "wsj1": discs, "dir": folder, "held_out_minutes": 0.1, "nj": 1, **options}
    words = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return subprocess.run([RUN, *words], capture_output=True, text=True)


def small_lexicon(corpus: Path, folder: Path) -> Path:
    """The lexicon of the spoken corpus: no word needs a rule, which would be learned from all of CMUdict."""
    path = folder / "lexicon.txt"
    path.write_text((corpus / "lm" / "librispeech-lexicon.txt").read_text())
    return path


def test_the_first_stages(tiny_corpus: Path, tmp_path: Path) -> None:
    mini = Miniature(tmp_path / "discs", tiny_corpus)
    done = recipe(mini.folder, tmp_path / "out", lexicon=small_lexicon(tiny_corpus, tmp_path), stop_stage=2)
    assert done.returncode == 0, done.stderr
    assert "dev93: 4 utterances" in done.stdout and "expected 503 and 8,234): not the official set" in done.stdout
    data = tmp_path / "out" / "data"
    assert {path.name for path in data.glob("*.text")} == {"train_si284.text", "dev.text", "dev93.text", "eval92.text"}
    assert sum(len((data / f"{name}.text").read_text().splitlines()) for name in ("train_si284", "dev")) == 17
    assert (data / "lang_phone" / "words.txt").exists() and (data / "corpus" / "lm" / "tgpr.arpa.gz").exists()
    again = recipe(mini.folder, tmp_path / "out", lexicon=small_lexicon(tiny_corpus, tmp_path), stop_stage=2)
    assert again.returncode == 0 and "train_si284: there already" in again.stdout, again.stderr


def test_discs_and_lexicon_are_named_from_where_the_user_stands(tiny_corpus: Path, tmp_path: Path) -> None:
    mini, lexicon = Miniature(tmp_path / "discs", tiny_corpus), small_lexicon(tiny_corpus, tmp_path)
    words = ["--wsj0", mini.folder.name, "--wsj1", mini.folder.name, "--lexicon", lexicon.name, "--dir", "out"]
    done = subprocess.run([RUN, *words, "--stop-stage", "0"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "data" / "corpus" / "lm" / "tgpr.arpa.gz").exists()


@pytest.mark.parametrize(("options", "said"), [
    ({"wsj0": "", "wsj1": ""}, "tr_s_wv1.ndx"), ({"train_sets": "train_si85"}, "there is no set 'train_si85' of WSJ"),
    ({"searches": "greedy tgtiny"}, "there is no language model 'tgtiny'"), ({"lexicon": "nowhere"}, "does not exist"),
])
def test_mistakes_are_sentences(tiny_corpus: Path, tmp_path: Path, options: dict[str, str], said: str) -> None:
    mini = Miniature(tmp_path / "discs", tiny_corpus)
    done = recipe(mini.folder, tmp_path / "out", stop_stage=1, **options)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_help_lists_the_options_of_the_recipe_and_of_all_recipes() -> None:
    done = subprocess.run([RUN, "--help"], capture_output=True, text=True)
    for words in ('--wsj0 ""  # folder with the discs of WSJ0', "--model tdnn_wsj6", "--searches \"greedy tgpr tg\""):
        assert words in done.stdout


@pytest.mark.slow
@needs_k2
def test_all_stages(tiny_corpus: Path, tmp_path: Path) -> None:
    mini, out = Miniature(tmp_path / "discs", tiny_corpus), tmp_path / "out"
    experiments = ("relu4-svd-0.5=distilled,size=0.5,from=relu4,teacher=relu4 "
                   "relu4-during=during,model=tdnn_quick,criterion=ctc,epochs=4,ctc_epochs=0")
    done = recipe(mini.folder, out, lexicon=small_lexicon(tiny_corpus, tmp_path), model="tdnn_quick", criterion="ctc",
                  controls="relu4=tdnn_quick", epochs=2, train_options=" ".join(OPTIONS), devices="dense",
                  precisions="float32", searches="greedy tgpr tg bg", when="after", experiments=experiments)
    assert done.returncode == 0, done.stderr
    found = result_rows.read(out / "results.jsonl")
    packed = {(row["name"], row["search"], row["test_set"]) for row in found if not row["precision"]}
    names, searches = ("dense", "relu4", "svd-0.5", "relu4-svd-0.5", "relu4-during"), ("greedy", "tgpr", "tg", "bg")
    assert packed == set(product(names, searches, ("dev93", "eval92")))
    assert {row["lm_scale"] for row in found if row["search"] == "tg"} <= {0.8, 1.0, 1.2, 1.6}
    assert {row["search"] for row in found if row["precision"]} == {"greedy", "HLG", "tgpr"}
    assert "--wsj0 WSJ0 --wsj1 WSJ1" in found[0]["command"] and str(tmp_path) not in (out / "results.jsonl").read_text()
    assert "## Published elsewhere" in (out / "RESULTS.md").read_text()


def dress(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, DRESS, *map(str, words)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPO)})


def test_a_dressed_corpus_is_read_as_the_discs_are(tiny_corpus: Path, tmp_path: Path) -> None:
    import gzip

    from asrcompress.data.corpora import librispeech, wsj
    from asrcompress.data.corpora._wsj_discs import Discs
    from asrcompress.data.corpora._wsj_import import import_language, import_sets

    (arpa := tmp_path / "corpus" / "lm" / "a.arpa.gz").parent.mkdir(parents=True)
    (arpa.parent.parent / "LibriSpeech").symlink_to(tiny_corpus / "LibriSpeech")
    arpa.write_bytes(gzip.compress(MODEL.encode()))
    sets = ["--si84", "train-quick", "--si284", "dev-quick", "--dev93", "dev-quick", "--eval92", "dev-quick"]
    done = dress(tmp_path / "corpus", tmp_path / "discs", *sets, "--arpa", "a.arpa.gz")
    assert done.returncode == 0, done.stderr
    discs = Discs(tmp_path / "discs", tmp_path / "discs")
    import_sets(discs, tmp_path / "out", ["train_si84", "train_si284", "eval92"], warn=lambda _: None)
    import_language(discs, tmp_path / "out", ["tg", "bg"], small_lexicon(tiny_corpus, tmp_path), warn=lambda _: None)
    grams = {name: [tuple(fields[1:n + 1]) for n, fields in ngram.ngrams(tmp_path / "out" / "lm" / f"{name}.arpa.gz")]
             for name in ("tg", "bg")}
    assert grams["tg"][:-1] == grams["bg"] and grams["tg"][-1] == ("<s>", "A", "</s>")
    named = dict(line.split() for line in (tmp_path / "discs" / "ids.txt").read_text().splitlines())
    for name, subset in (("train_si84", "train-quick"), ("eval92", "dev-quick")):
        wanted = {cut.supervisions[0].id: cut for cut in librispeech.prepare(tiny_corpus, subset)}
        found = {named[cut.supervisions[0].id]: cut for cut in wsj.prepare(tmp_path / "out", name)}
        assert found.keys() == wanted.keys()
        for one, cut in found.items():
            assert cut.supervisions[0].text == wanted[one].supervisions[0].text
            assert (cut.load_audio() == wanted[one].load_audio()).all()
    assert dress(tmp_path / "corpus", tmp_path / "discs", *sets).stderr.endswith("give another folder for the discs\n")
    wrong = dress(tmp_path / "corpus", tmp_path / "other", "--si84", "none", "--arpa", "a.arpa.gz")
    assert wrong.returncode == 1 and "holds no *.trans.txt" in wrong.stderr and "Traceback" not in wrong.stderr
