import gzip
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from asrcompress import cli
from asrcompress.data import sphere
from asrcompress.data.corpora import _wsj_bd, wsj
from asrcompress.data.corpora._wsj_discs import SETS, Discs
from asrcompress.data.corpora._wsj_import import import_language, import_sets
from asrcompress.errors import UserError
from recipes.wsj import discs as writers
from tests.wsj_corpus import LAYOUTS, NO_SPEECH, Miniature

ALL = ("train_si84", "train_si284", "dev93", "eval92", "eval93")
SPEAKERS = {"train_si84": ["zz0"], "train_si284": ["zz0", "zz1", "zz2"], "dev93": ["zz3"], "eval92": ["zz4"],
            "eval93": ["zz5"]}


@pytest.fixture(scope="session")
def pressed(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """The miniature, not to be changed."""
    return Miniature(tmp_path_factory.mktemp("wsj") / "discs", tiny_corpus)


@pytest.fixture
def mini(pressed: Miniature, tmp_path: Path) -> Miniature:
    """A copy that a test may spoil."""
    return pressed.copied(tmp_path / "discs")


def run(mini: Miniature, sets: str = "train_si84 eval92", **options: bool) -> list[str]:
    """Import sets into `corpus` beside the discs; what is warned of, but for the counts that are no official ones."""
    said: list[str] = []
    import_sets(Discs(mini.wsj0, mini.wsj1, said.append), mini.out, sets.split(), warn=said.append, **options)
    return [line for line in said if "not the official set" not in line]


def rows(mini: Miniature, name: str) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in map(json.loads, (mini.out / f"{name}.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_cuts(layout: str, tiny_corpus: Path, tmp_path: Path) -> None:
    mini = Miniature(tmp_path / "discs", tiny_corpus, layout)
    assert run(mini, " ".join(ALL)) == [f"train_si284: {NO_SPEECH} holds no speech: its transcript is '~~'; left out"]
    assert wsj.subsets(mini.out) == (["train_si284"], ["dev93", "eval92", "eval93"])
    for name in ALL:
        wanted = sorted(u for u in mini.words if u[:3] in SPEAKERS[name] and u != NO_SPEECH)
        cuts = list(wsj.prepare(mini.out, name, pytest.fail))
        assert [cut.supervisions[0].id for cut in cuts] == wanted
        for cut in cuts:
            said = cut.supervisions[0]
            assert (said.text, said.speaker) == (mini.words[said.id], said.id[:3])
            np.testing.assert_array_equal(cut.load_audio()[0] * 32768, mini.samples[said.id])


def test_one_folder_serves_as_both_whatever_links_are_in_it(mini: Miniature) -> None:
    (mini.folder / "all").symlink_to(mini.folder)
    (mini.folder / "0").symlink_to(mini.folder / "11-14.1" / "wsj0")  # comes first, and leads to no inner path
    assert run(mini, "dev93 eval92") == []
    assert len(rows(mini, "dev93")) == len(rows(mini, "eval92")) == 4


def test_the_folder_called_wsj0_may_hold_discs(mini: Miniature) -> None:
    mini.wsj0 = mini.wsj1 = mini.folder.rename(mini.folder.with_name("wsj0"))
    assert run(mini, "dev93 eval92") == []


def test_wsj0_alone_is_enough_for_its_sets(mini: Miniature) -> None:
    mini.wsj1 = None
    for disc in mini.folder.glob("13-*"):
        shutil.rmtree(disc)
    assert run(mini, "train_si84 eval92") == []
    with pytest.raises(UserError, match=r"index file wsj1/doc/indices/h1_p0.ndx of disc 13-34.1 \(LDC94S13A or "
                                        r"LDC94S13B\) is missing; give the folder with the discs as --wsj1"):
        run(mini, "dev93")


def test_raw_text_is_kept_beside_the_words(mini: Miniature) -> None:
    run(mini, "eval92")
    raw = dict(line.split(" ", 1) for line in (mini.out / "eval92.raw").read_text().splitlines())
    assert raw["zz4c0101"] == f"[phone_ring/] {mini.words['zz4c0101'].capitalize()} . [/phone_ring]"
    assert list(raw) == list(rows(mini, "eval92")) == sorted(raw)


def test_official_counts(mini: Miniature, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Kaldi's egs/wsj/s5: local/wsj_data_prep.sh and RESULTS; and what is said where they are met or not."""
    counts = {name: (one.utterances, one.words) for name, one in SETS.items()}
    assert counts == {"train_si84": (7138, None), "train_si284": (37416 - 2, None), "dev93": (503, 8234),
                      "dev93_5k": (513, None), "eval92": (333, 5643), "eval92_5k": (330, None), "eval93": (213, None),
                      "eval93_5k": (215, None)}
    words = sum(len(said.split()) for name, said in mini.words.items() if name.startswith("zz4"))
    for expected in ((4, words), (4, words + 1)):
        monkeypatch.setitem(SETS, "eval92", SETS["eval92"]._replace(utterances=expected[0], words=expected[1]))
        shutil.rmtree(mini.out, ignore_errors=True)
        run(mini, "eval92")
        same = f"\neval92: 4 utterances, {words} words (expected 4 and {words})\n"
        assert (same in capsys.readouterr().out) == (expected[1] == words)
    said: list[str] = []
    import_sets(Discs(mini.wsj0, None), mini.out, ["train_si84"], warn=said.append)
    words = sum(len(said.split()) for name, said in mini.words.items() if name.startswith("zz0"))
    assert said == [f"train_si84: 6 utterances, {words} words (expected 7,138 utterances): not the official set"]


def test_what_is_there_is_not_made_again_and_nothing_is_left_of_a_run_that_was_killed(mini: Miniature) -> None:
    run(mini, "eval92")
    kept = mini.out / "audio" / "zz4" / "zz4c0101.flac"
    kept.write_bytes(b"mine")
    (kept.parent / ".zz4c0102.flac.17.tmp").write_bytes(b"half")
    (mini.out / "eval92.jsonl").unlink()
    run(mini, "eval92")
    assert kept.read_bytes() == b"mine" and not list(mini.out.rglob("*.tmp"))
    shutil.rmtree(mini.folder / "11-14.1")
    assert run(mini, "eval92") == [], "a set that is there needs no disc"


# Folders that are not what they should be.

def test_folders_that_are_missing_empty_or_swapped(mini: Miniature, tmp_path: Path) -> None:
    zero, one, empty = (tmp_path / name for name in ("zero", "one", "empty"))
    empty.mkdir()
    for folder, digits in ((zero, "11"), (one, "13")):
        folder.mkdir()
        for disc in mini.folder.glob(f"{digits}-*"):
            (folder / disc.name).symlink_to(disc)
    index = "wsj0/doc/indices/train/tr_s_wv1.ndx is looked for below it"
    with pytest.raises(UserError, match=f"--wsj0 .*nowhere is no folder; give .* discs: {index}"):
        Discs(tmp_path / "nowhere", one)
    with pytest.raises(UserError, match=f"--wsj0 .*empty holds no disc of LDC93S6A or LDC93S6B; give .*: {index}"):
        Discs(empty, one)
    with pytest.raises(UserError, match="--wsj1 .*empty holds no disc .*: wsj1/doc/indices/si_tr_s.ndx is looked for"):
        Discs(zero, empty)
    with pytest.raises(UserError, match="below --wsj0 .*one is wsj1/ and no wsj0/; --wsj0 and --wsj1 may be swapped"):
        Discs(one, zero)
    assert Discs(zero, one).find("WSJ0/doc/readme.txt") is not None


def test_the_other_microphone(mini: Miniature) -> None:
    for path in mini.folder.rglob("*.wv1"):
        path.rename(path.with_suffix(".wv2"))
    with pytest.raises(UserError, match=r"only .wv2 files, those of the other microphone \(LDC93S6C\); give LDC93S6A"):
        run(mini)


def test_a_folder_that_cannot_be_read_is_named(mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:  # root, who runs many tests, may read every folder
        if path.endswith("11-1.1"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"11-1.1 cannot be read \(Permission denied\); repair the copy of the disc"):
        run(mini)


# Discs that are missing or there twice, and their index files.

def test_a_missing_disc_stops_and_says_what_it_holds(mini: Miniature) -> None:
    shutil.rmtree(mini.folder / "11-1.1")
    shutil.rmtree(mini.folder / "13-16.1")
    wanted = ("disc 11-1.1 of LDC93S6A or LDC93S6B, with 6 utterances of train_si284, is missing; disc 13-16.1 of "
              "LDC94S13A or LDC94S13B, with 6 utterances of train_si284, is missing; copy that beside the other discs, "
              "or give --partial to go on without")
    with pytest.raises(UserError, match=f"^{re.escape(wanted)}$"):
        run(mini, "eval92 train_si284")
    assert not mini.out.exists()


def test_partial_sets_say_so_in_their_name(mini: Miniature) -> None:
    missing = mini.folder / "13-16.1"
    missing.rename(mini.folder.with_name("away"))
    said = run(mini, "eval92 train_si284", partial=True)
    assert said == [f"train_si284_partial: {NO_SPEECH} holds no speech: its transcript is '~~'; left out"]
    assert wsj.subsets(mini.out) == (["train_si284_partial"], ["eval92"])
    assert {cut.supervisions[0].speaker for cut in wsj.prepare(mini.out, "train_si284_partial")} == {"zz0", "zz1"}
    with pytest.raises(UserError, match="train_si284 is not whole in .*: disc 13-16.1 of LDC94S13A or LDC94S13B, with "
                                        "6 utterances of train_si284, is missing; .*or ask for train_si284_partial"):
        wsj.prepare(mini.out, "train_si284")
    with pytest.raises(UserError, match="disc 13-16.1"):
        run(mini, "train_si284")
    assert run(mini, "train_si284_partial") == [], "the recipe names a partial set again where it is to be used"
    mini.folder.with_name("away").rename(missing)
    run(mini, "train_si284")
    assert len(list(wsj.prepare(mini.out, "train_si284"))) == 17
    assert wsj.subsets(mini.out).train == ["train_si284"]


def test_transcripts_that_are_all_missing_are_a_missing_disc(mini: Miniature) -> None:
    for disc in ("11-4.1", "11-10.1"):
        shutil.rmtree(mini.folder / disc)
    with pytest.raises(UserError, match=r"the .dot files of LDC93S6A or LDC93S6B with the text of 6 utterances of "
                                        r"train_si84 \(on disc 11-4.1, 11-10.1 or 11-14.1\) are missing"):
        run(mini)


def test_a_set_without_any_utterance_is_an_error_with_partial_as_well(mini: Miniature) -> None:
    shutil.rmtree(mini.folder / "11-14.1")
    with pytest.raises(UserError, match="eval92 has no usable utterance"):
        run(mini, "eval92", partial=True)
    assert not list(mini.out.glob("eval92*"))


def test_a_missing_index_and_a_bad_line(mini: Miniature) -> None:
    index = mini.folder / "13-34.1/wsj1/doc/indices/h1_p0.ndx"
    index.write_text(index.read_text() + "\n13_34_1 wsj1/si_dt_20/zz3/zz3c0105.wv1\n")
    with pytest.raises(UserError, match=rf"{index}, line 7: '13_34_1 wsj1/.*' is not DISC:PATH, such as 11_1_1:wsj0/"):
        run(mini, "dev93")
    index.unlink()
    with pytest.raises(UserError, match="index file wsj1/doc/indices/h1_p0.ndx of disc 13-34.1 .* is not below --wsj1"):
        run(mini, "dev93")
    assert run(mini, "eval92") == [], "only the sets that are asked for need their index"


def test_the_same_disc_twice(mini: Miniature) -> None:
    shutil.copytree(mini.folder / "11-1.1", mini.folder / "more" / "11_1_1")
    first, second = mini.folder / "11-1.1", mini.folder / "more" / "11_1_1"
    assert run(mini, "train_si84") == [f"disc 11-1.1 is there twice; {first} is used before {second}"]
    assert len(rows(mini, "train_si84")) == 6


def test_transcripts_that_differ_stop(mini: Miniature) -> None:
    one, two = (mini.folder / disc / "wsj0/transcrp/dots/si_tr_s/zz0/zz0c0100.dot" for disc in ("11-10.1", "11-4.1"))
    two.write_text(two.read_text().replace("(zz0c0103)", "indeed (zz0c0103)"))
    with pytest.raises(UserError, match=f"{two} and {one} have different text for zz0c0103"):
        run(mini)
    assert not mini.out.exists()


# Utterances that cannot be used.

def audio(mini: Miniature, number: int) -> Path:
    return mini.folder / f"11-14.1/wsj0/si_et_20/zz4/zz4c01{number:02d}.wv1"


def spoil_no_transcript(mini: Miniature) -> None:
    dot = audio(mini, 1).with_name("zz4c0100.dot")
    dot.write_text("".join(dot.read_text().splitlines(keepends=True)[1:]))


def spoil_samples(mini: Miniature, samples: np.ndarray, rate: int = 16000) -> None:
    writers.sphere(audio(mini, 1), samples, "pcm-be", rate)


FAULTS = {
    "has no transcript": spoil_no_transcript,
    "has no audio": lambda mini: audio(mini, 1).unlink(),
    "samples": lambda mini: spoil_samples(mini, np.zeros(0, np.int16)),
    "is sampled at 20000 Hz": lambda mini: spoil_samples(mini, np.arange(99, dtype=np.int16), 20000),
    "channels": lambda mini: spoil_samples(mini, np.arange(198, dtype=np.int16).reshape(99, 2)),
    "holds .* samples": lambda mini: os.truncate(audio(mini, 1), 3000),
    "checksum": lambda mini: audio(mini, 1).write_bytes(audio(mini, 1).read_bytes()[:-2] + b"\x12\x34"),
    "zz4c0101.wv1": lambda mini: audio(mini, 1).write_bytes(b"no audio"),
    "holds no speech: its transcript is '[~]~'": lambda mini: (
        audio(mini, 1).with_name("zz4c0100.dot").write_text("~~ (zz4c0101)\n" + "".join(
            f"{mini.words[f'zz4c010{n}']} (zz4c010{n})\n" for n in (2, 3, 4)))),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_faulty_utterances_are_named_and_left_out(sentence: str, mini: Miniature) -> None:
    FAULTS[sentence](mini)
    (said,) = run(mini, "eval92")
    assert re.fullmatch(f"eval92: zz4c0101 .*{sentence}.*; left out", said), said
    assert list(rows(mini, "eval92")) == ["zz4c0102", "zz4c0103", "zz4c0104"]
    assert not (mini.out / "audio/zz4/zz4c0101.flac").exists() and not list(mini.out.rglob("*.tmp"))


def test_shorten_without_a_decoder_stops_before_anything_is_decoded(
        mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(sphere.DecoderMissing, match="sph2pipe"):
        run(mini, "train_si84")
    assert not mini.out.exists()


def test_a_corpus_folder_that_cannot_be_written_is_a_sentence(mini: Miniature) -> None:
    (mini.out / "audio").mkdir(parents=True)
    (mini.out / "audio" / "zz4").write_text("a file where the speaker's folder has to be")
    with pytest.raises(UserError, match=r"audio/zz4 is in the way, .*; move it away, or give another name"):
        run(mini, "eval92")
    assert not list(mini.out.rglob("*.tmp")) and not list(mini.out.glob("eval92*"))


# The folder as the other stages read it.

def test_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="LDC93S6B and LDC94S13B.*--wsj0 and --wsj1"):
        wsj.download(tmp_path, "full")


def test_sets_that_are_missing_or_damaged(mini: Miniature) -> None:
    run(mini, "eval92")
    with pytest.raises(UserError, match="has no set dev93; import it from the discs with `asrcompress wsj`"):
        wsj.prepare(mini.out, "dev93")
    with pytest.raises(UserError, match="corpus folder .*nowhere does not exist"):
        wsj.prepare(mini.out / "nowhere", "dev93")
    (mini.out / "audio/zz4/zz4c0102.flac").unlink()
    said: list[str] = []
    assert len(list(wsj.prepare(mini.out, "eval92", said.append))) == 3
    assert said == ["eval92: zz4c0102 has no audio; left out", "eval92: 1 of 4 utterances left out"]
    with (mini.out / "eval92.jsonl").open("a") as stream:
        stream.write('{"id": "zz4c0105", "speaker": 4}\n')
    with pytest.raises(UserError, match="eval92.jsonl, line 5 has no id, speaker and words"):
        wsj.prepare(mini.out, "eval92")


def test_searches_and_lexicon_are_found_where_they_are(tmp_path: Path) -> None:
    assert wsj.searches(tmp_path) == []
    with pytest.raises(UserError, match="lexicon.txt is missing; make it with `asrcompress wsj"):
        wsj.lexicon(tmp_path)
    (tmp_path / "lm").mkdir()
    arpa = {name: tmp_path / "lm" / f"{name}.arpa.gz" for name in ("tg", "tgpr", "bd_fg", "bg_5k")}
    for path in (*arpa.values(), tmp_path / "lm" / "lexicon.txt"):
        path.touch()
    assert wsj.searches(tmp_path) == [("tgpr", arpa["tgpr"], None), ("tg", arpa["tg"], "tgpr"),
                                      ("bg_5k", arpa["bg_5k"], None)], "bd_fg has no lattices without bd_tgpr"
    assert wsj.lexicon(tmp_path) == tmp_path / "lm" / "lexicon.txt"


def test_the_command_leaves_all_that_other_stages_read(mini: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["wsj", "--wsj0", str(mini.wsj0), "--wsj1", str(mini.wsj1), "--out", str(mini.out),
               "--sets", "train_si84 eval92", "--lms", "tgpr tg bg tg_5k"]
    assert cli.main(command) == 0
    searches = [search.name for search in wsj.searches(mini.out)]
    assert searches == ["tgpr", "tg", "bg", "tgpr_5k", "tg_5k"], "tg_5k brings the search that it rescores"
    said = {word for name, words in mini.words.items() if name != NO_SPEECH for word in words.split()}
    for name, order in (("bg", 2), ("tg", 3), ("tg_5k", 3), ("tgpr", 3)):
        arpa = gzip.decompress((mini.out / "lm" / f"{name}.arpa.gz").read_bytes()).decode()
        assert arpa.startswith("\\data\\\nngram 1=") and arpa.rstrip().endswith("\\end\\")
        assert f"\\{order}-grams:" in arpa and f"\\{order + 1}-grams:" not in arpa
        unigrams = arpa.partition("\\1-grams:\n")[2].partition("\n\n")[0]
        assert {line.split()[1] for line in unigrams.splitlines()} >= said
    listed = {line.split(" ", 1)[0] for line in wsj.lexicon(mini.out).read_text().splitlines()}
    assert listed >= said
    before = {path: path.stat().st_mtime_ns for path in mini.out.rglob("*.arpa.gz")}
    shutil.rmtree(mini.folder / "13-32.1")
    assert cli.main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in mini.out.rglob("*.arpa.gz")}
    capsys.readouterr()
    assert cli.main([*command[:-1], "bg_5k"]) == 1
    assert "base_lm/bcb05onp.z, which is on disc 13-32.1 of WSJ1" in capsys.readouterr().err


def test_the_big_dictionary_is_made_of_the_text_of_the_discs(mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wsj_bd, "HELD_OUT", 4)
    lexicon = mini.out.with_name("lexicon.txt")
    lexicon.write_text("".join(f"{word} F\n" for word in sorted(set(" ".join(mini.words.values()).split()))))
    run(mini, "eval92")
    for lms, bd_arpa in ((["bd_tgpr", "bd_fg"], None), (["bd_fg"], mini.out / "lm" / "bd_fg.arpa.gz")):
        out = mini.out if bd_arpa is None else shutil.copytree(mini.out, mini.out.with_name("other"),
                                                               ignore=shutil.ignore_patterns("lm"))
        said: list[str] = []
        import_language(Discs(mini.wsj0, mini.wsj1), out, lms, lexicon, bd_arpa, said.append)
        assert [search.name for search in wsj.searches(out)] == ["bd_tgpr", "bd_fg"]
        assert ("perplexity" in " ".join(said)) == (bd_arpa is None)
    first, second = (gzip.decompress((folder / "lm" / "bd_fg.arpa.gz").read_bytes()) for folder in (mini.out, out))
    assert first == second


def test_the_command_says_bad_input_in_one_sentence(mini: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["wsj", "--wsj0", str(mini.wsj0), "--out", str(mini.out)]
    assert cli.main([*command, "--sets", "eval94"]) == 1
    assert capsys.readouterr().err.startswith("asrcompress wsj: there is no set 'eval94' of WSJ; there are train_si284")
    assert cli.main([*command, "--sets", "eval92", "--jobs", "0"]) == 1
    assert "--jobs" in capsys.readouterr().err
