"""A model card: what a released file is, what it makes of the test sets, how it was made and how it is used.

In the form of the Hugging Face hub: a README.md that starts with YAML, in which `model-index` holds the error rates.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrcompress import files
from asrcompress.compression import packed
from asrcompress.errors import UserError
from asrcompress.report import rows, table
from asrcompress.report.rows import Row

MODEL, CARD, SUMS, LANG = "model.packed", "README.md", "SHA256SUMS", "lang"
METRICS = {"wer": "WER", "ter": "token error rate"}


def release(name: str, found: list[Row], exp: Path, out: Path, lang: Path | None = None, licence: str = "apache-2.0",
            arpa: Path | None = None) -> Path:
    """Write OUT/NAME: the packed file of EXP/NAME, the lang folder's tokens, the card, and the digests of them all.

    arpa: the language model that `words` puts into OUT. Errors: UserError where no row or no packed file has this name,
    or the rows tell of a file of other bytes.
    """
    own = [row for row in found if row["name"] == name and not rows.is_device(row)]
    if not own:
        near = ", ".join(dict.fromkeys(row["name"] for row in found))
        raise UserError(f"no row tells of a packed file of the model '{name}'; the rows have {near or 'none'}")
    source = files.require_file(exp / name / MODEL, "the packed file")
    size = source.stat().st_size
    if told := {row["packed_bytes"] for row in own if row["packed_bytes"]} - {size}:
        raise UserError(f"{source} has {size:,} bytes and its rows tell of {told.pop():,}; decode it again")
    packed.load(source)  # what is released can be loaded
    folder, copies = out / name, [source, *([lang / "tokens.txt"] if lang else [])]
    _copy(folder, copies)
    with files.atomic(folder / CARD) as temporary:
        temporary.write_text(card(name, own, folder / MODEL, licence, arpa), encoding="utf-8")
    _digest(folder, [CARD, *(path.name for path in copies)])
    return folder


def words(out: Path, lang: Path, arpa: Path) -> None:
    """Write OUT/lang: what a graph of words is made of, for all models of OUT. Errors: UserError for a missing file."""
    copies = [*(lang / name for name in ("tokens.txt", "lexicon.txt", "words.txt")), arpa]
    _copy(out / LANG, copies)
    _digest(out / LANG, [path.name for path in copies])


def _copy(folder: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        with files.atomic(folder / path.name) as temporary:
            shutil.copyfile(files.require_file(path, "a file of the release"), temporary)


def _digest(folder: Path, names: Sequence[str]) -> None:
    with files.atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{files.sha256(folder / one)}  {one}\n" for one in names), encoding="utf-8")


def card(name: str, own: list[Row], path: Path, licence: str, arpa: Path | None = None) -> str:
    """The Markdown text. arpa: a language model in the folder `lang` beside the model's."""
    first, size = own[0], path.stat().st_size
    kind = f"{first['structure']} x {first['quantization']} x {first['coder']}"
    made = [f"* {says}: {', '.join(values)}" for says, key in (
        ("model", "model"), ("trained on", "train_set"), ("options", "options"), ("seed", "seed"), ("code", "commit"))
        if (values := list(dict.fromkeys(str(row[key]) for row in own if row[key] not in (None, ""))))]
    commands = list(dict.fromkeys(row["command"] for row in own if row["command"]))
    ratio = f", 1/{first['ratio']:.3g} of the dense float32 file" if first["ratio"] else ""
    lang = (path.parent / "tokens.txt").exists()
    if arpa:
        use = [f"asrcompress graph --lang ../{LANG} --arpa ../{LANG}/{arpa.name} --out ../graph  # once for all models",
               f"asrcompress transcribe {MODEL} --lang ../{LANG} --graph ../graph/HLG.npz a.wav"]
    else:
        use = [f"asrcompress transcribe {MODEL}{' --lang .' if lang else ''} a.wav"]
    return "\n".join([
        "---", *yaml(name, own, licence), "---\n", f"# {name}\n",
        f"A speech recogniser in {size:,} bytes{ratio} ({kind}), made and measured by asrcompress.\n",
        "## Use\n", "\n".join(["```sh", f"sha256sum -c {SUMS}", *use, "```\n"]),
        *(["The graph of words is one of few words and n-grams, made for this folder: the rates below are those of the "
           "searches that the table names.\n"] if arpa else
          ["Its tokens are in tokens.txt. Where they are phones, words need a graph besides: `--lang` with the lang "
           "folder and `--graph` with HLG.npz, which stages 2 and 3 of the recipe make.\n"] if lang else []),
        "## Measured\n", table.to_markdown(measured(own)),
        "Rates in percent with the 95 % interval of a bootstrap over utterances; p is the probability, on the same "
        "resamples, of making fewer errors than the dense model.\n",
        "## What the bytes are\n", table.to_markdown(bytes_of(path)), "## How it was made\n", *made, "",
        *(["```sh", *commands, "```\n"] if commands else []),
        "## Limits\n", "Speech unlike that of the training set is recognised worse than the table says: other accents, "
        "noise, far microphones, other languages. The intervals are those of the test sets named, no more.\n"])


def yaml(name: str, own: list[Row], licence: str) -> list[str]:
    """The lines of the hub's metadata; JSON texts are YAML."""
    results = [{"task": {"type": "automatic-speech-recognition"},
                "dataset": {"name": row["test_set"], "type": row["test_set"]},
                "metrics": [{"type": kind, "name": f"{METRICS[kind]}, {row['search']}", "value": row[kind]}]}
               for row in own for kind in METRICS if row[kind] is not None]
    facts: dict[str, Any] = {"license": licence, "library_name": "asrcompress",
                             "pipeline_tag": "automatic-speech-recognition", "tags": ["speech", "model-compression"],
                             "model-index": [{"name": name, "results": results}]}
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]


def measured(own: list[Row]) -> list[list[str]]:
    """Test set, search and rate of each row, with its interval and p."""
    cells = [[row["test_set"], row["search"], METRICS[kind],
              table.Cell(row[kind], row["ci95"], row["p_better_than_dense"]).text()]
             for row in own for kind in METRICS if row[kind] is not None]
    return [["test set", "search", "rate", "%"], *cells]


def bytes_of(path: Path) -> list[list[str]]:
    """The bytes of the file by structure, quantization and coder, the most first."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in packed.info(path):
        entry = sums.setdefault((row["structure"], row["quantization"], row["coder"]), [0, 0])
        entry[0], entry[1] = entry[0] + row["parameters"], entry[1] + row["bytes"]
    lines = [[*key, f"{values:,}" if values else "", f"{size:,}"]
             for key, (values, size) in sorted(sums.items(), key=lambda one: -one[1][1])]
    total = sum(size for _, size in sums.values())
    return [["structure", "quantization", "coder", "values", "bytes"], *lines, ["file", "", "", "", f"{total:,}"]]
