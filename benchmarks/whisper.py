"""Whisper on this machine, peers side by side: bytes, WER, speed and memory of ours, CTranslate2 and others.

Run:
  cd recipes/librispeech && python ../../benchmarks/whisper.py --hf hf-tiny --packed int8.packed int4.packed \\
      --ctranslate2 ct2-tiny --peers-python peers/bin/python --data data --set dev-clean-2 --out whisper.json

All search greedily, one utterance after the other, without timestamps; the first one is heard once before, untimed.
Utterances longer than Whisper's window of 30 s are left out. Every peer runs in a process of its own, whose peak memory
is its own. `RTF` is seconds on the clock per second of audio, and `CPU` seconds of all cores, both with features;
`others` counts utterances whose words are not those of our float32 model; WERs are of normalised words.

CTranslate2 hears features that ours computed: their time is added to its own, their memory is not. --ctranslate2 has
the model in float16, computed with as float32. --onnx has folders for sherpa-onnx (encoder.onnx, decoder.onnx,
tokens.txt), which computes features of its own, as whisper.cpp does; it adds 10 s of silence to an utterance, where all
others fill it up to 30 s, so that each folder is heard both ways. Made here are CTranslate2's int8, of --hf; the
types of ggml that --whisper-cpp names, of --hf; and the int8 of onnxruntime's quantize_dynamic, of the float32 folder
--onnxruntime. The packages of peers are in no requirements: `python -m venv peers && peers/bin/pip install ctranslate2
pywhispercpp gguf`, of the same version of Python.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asrcompress.errors import UserError  # nothing above and in `one` needs torch: peers run without
from asrcompress.measure.machine import cpu, cpu_flags, peak_rss

GGML = str(Path(__file__).with_name("whisper_ggml.py"))
Row = dict[str, Any]
Job = dict[str, Any]  # peer, model (a path), threads, prompt (tokens), folder of utterances; `type` of CTranslate2
RATE, WINDOW, MAX_LENGTH = 16000, 30, 448
CONVERTER = "from ctranslate2.converters import TransformersConverter as C; C({!r}).convert({!r}, quantization='int8')"


def ours(job: Job) -> Callable[[np.ndarray], str]:
    import torch

    from asrcompress import recognisers

    torch.set_num_threads(job["threads"])
    recogniser = recognisers.load(job["model"])
    return lambda samples: recogniser.transcribe([("", samples, RATE)])[""]


def ctranslate2(job: Job) -> Callable[[np.ndarray], list[int]]:
    import ctranslate2

    model = ctranslate2.models.Whisper(job["model"], compute_type=job["type"], intra_threads=job["threads"])

    def hear(mel: np.ndarray) -> list[int]:  # it stops at half of max_length
        features = ctranslate2.StorageView.from_array(mel)
        return model.generate(features, [job["prompt"]], beam_size=1, max_length=MAX_LENGTH)[0].sequences_ids[0]

    return hear


def sherpa_onnx(job: Job) -> Callable[[np.ndarray], str]:
    from sherpa_onnx import OfflineRecognizer

    from asrcompress.runtimes.sherpa_onnx import Recognizer, decode

    encoder, decoder, tokens = (f"{job['model']}/{name}" for name in ("encoder.onnx", "decoder.onnx", "tokens.txt"))
    offline = OfflineRecognizer.from_whisper(encoder, decoder, tokens, num_threads=job["threads"],
                                             tail_paddings=job.get("tail", -1))
    model = Recognizer(offline, Path(job["model"]), WINDOW)
    return lambda samples: decode(model, [("", samples, RATE)]).words[""]


def whisper_cpp(job: Job) -> Callable[[np.ndarray], str]:
    from pywhispercpp.model import Model

    model = Model(job["model"], redirect_whispercpp_logs_to=None, n_threads=job["threads"], language="en",
                  no_timestamps=True, single_segment=True, suppress_nst=True, temperature_inc=0.0,
                  greedy={"best_of": 1}, print_progress=False, context_params={"use_gpu": False})
    return lambda samples: " ".join(segment.text.strip() for segment in model.transcribe(samples))


PEERS = {"ours": ours, "ctranslate2": ctranslate2, "sherpa-onnx": sherpa_onnx, "whisper.cpp": whisper_cpp}
PACKAGES = {"sherpa-onnx": "sherpa-onnx", "ctranslate2": "ctranslate2", "whisper.cpp": "pywhispercpp"}


def one(job: Job) -> Row:
    """Run a job in this process: tokens or text of each utterance, seconds, memory; or why it is `left_out`."""
    try:
        hear = PEERS[job["peer"]](job)
    except ImportError as error:
        return {"left_out": f"{error}; `{sys.executable} -m pip install {PACKAGES.get(job['peer'], error.name)}`"}
    kind, folder = "mel" if job["peer"] == "ctranslate2" else "wave", Path(job["folder"])
    hear(np.load(folder / f"0.{kind}.npy"))
    said, seconds, used = [], 0.0, 0.0
    for number in range(job["utterances"]):
        heard = np.load(folder / f"{number}.{kind}.npy")
        started, cpu_started = time.perf_counter(), time.process_time()
        said.append(hear(heard))
        seconds, used = seconds + time.perf_counter() - started, used + time.process_time() - cpu_started
    return {"said": said, "seconds": seconds, "cpu_seconds": used, "peak_rss_bytes": peak_rss()}


def apart(python: str, arguments: list[str], threads: int, *more: str) -> str:
    """What Python prints in a process of its own; `more` is where it looks for modules besides. UserError if it
    fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads),
                   "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *more))}
    try:
        done = subprocess.run([python, *arguments], capture_output=True, text=True, env=environment)
    except OSError as error:
        raise UserError(f"{python} cannot be run: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(f"its process ended with {done.returncode}: {last}")
    return done.stdout


def prepare(args: argparse.Namespace, recogniser: Any, folder: Path) -> tuple[list[str], Row]:
    """Write samples and features of each utterance; their names, and seconds of audio and of computing features."""
    from asrcompress.recognisers.base import at_rate
    from asrcompress.runtimes.base import waves_of_set

    names, facts = [], {"audio": 0.0, "seconds": 0.0, "cpu_seconds": 0.0, "longer": 0}
    for utt, wave, rate in waves_of_set(args.data, args.set):
        if len(wave) > WINDOW * rate:
            facts["longer"] += 1
            continue
        samples = at_rate(wave, rate)
        for _ in range(1 if names else 2):  # the first one is slow
            started, cpu_started = time.perf_counter(), time.process_time()
            mel = recogniser.extractor([samples], sampling_rate=RATE, return_tensors="np").input_features
            seconds, used = time.perf_counter() - started, time.process_time() - cpu_started
        np.save(folder / f"{len(names)}.wave.npy", samples)
        np.save(folder / f"{len(names)}.mel.npy", np.ascontiguousarray(mel, np.float32))
        facts["audio"], facts["seconds"] = facts["audio"] + len(samples) / RATE, facts["seconds"] + seconds
        facts["cpu_seconds"] += used
        names.append(utt)
        if len(names) == args.utterances:
            break
    return names, facts


def jobs(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[Path], Job, Callable[[], object]]]:
    """Name, files that count as the model's bytes, job, and what makes the files, of each peer."""
    packages = sysconfig.get_path("purelib")  # what converters need besides the packages of peers
    yield "ours, float32", [args.hf / "model.safetensors"], {"peer": "ours", "model": f"hf:{args.hf}"}, nothing
    for path in args.packed:
        yield f"ours, {path.parent.name}/{path.name}", [path], {"peer": "ours", "model": str(path)}, nothing
    if args.ctranslate2:
        at, int8 = args.ctranslate2, folder / "int8"
        make = partial(apart, args.peers_python, ["-c", CONVERTER.format(str(args.hf), str(int8))], 1, packages)
        yield ("CTranslate2, float16 as float32", [at / "model.bin"],
               {"peer": "ctranslate2", "model": str(at), "type": "float32"}, nothing)
        yield ("CTranslate2, int8", [int8 / "model.bin"],
               {"peer": "ctranslate2", "model": str(int8), "type": "int8"}, make)
    for path in args.onnx:
        yield f"sherpa-onnx, {path.name}", of_sherpa(path), {"peer": "sherpa-onnx", "model": str(path)}, nothing
        yield (f"sherpa-onnx, {path.name}, 30 s", of_sherpa(path),
               {"peer": "sherpa-onnx", "model": str(path), "tail": 100 * WINDOW}, nothing)
    if args.onnxruntime:
        at = folder / "onnxruntime"
        make = partial(onnxruntime_int8, args.onnxruntime, at)
        yield "sherpa-onnx, onnxruntime's int8", of_sherpa(at), {"peer": "sherpa-onnx", "model": str(at)}, make
    for kind in args.whisper_cpp:
        at = folder / f"{kind}.bin"
        words = [GGML, "--hf", str(args.hf), "--type", kind, "--out", str(at)]
        make = partial(apart, args.peers_python, words, 1, packages)
        yield f"whisper.cpp, {kind}", [at], {"peer": "whisper.cpp", "model": str(at)}, make


def nothing() -> None:
    """The files are there."""


def of_sherpa(folder: Path) -> list[Path]:
    return [folder / "encoder.onnx", folder / "decoder.onnx"]


def onnxruntime_int8(dense: Path, out: Path) -> None:
    """The folder OUT for sherpa-onnx with weights that onnxruntime makes int8, of one in float32."""
    from onnxruntime.quantization import quantize_dynamic

    out.mkdir()
    for path in of_sherpa(dense):
        quantize_dynamic(path, out / path.name)
    shutil.copy(dense / "tokens.txt", out)


def measure(args: argparse.Namespace, folder: Path) -> Row:
    """All rows, and what was left out and why; --out has those so far."""
    import torch

    from asrcompress import recognisers
    from asrcompress.decoding.score import score
    from asrcompress.files import require_file
    from asrcompress.lang import text

    torch.set_num_threads(args.threads)
    recogniser = recognisers.load(f"hf:{args.hf}")
    names, heard = prepare(args, recogniser, folder)
    references = text.read(args.data / f"{args.set}.text")
    wanted = {utt: recogniser.normalise(references[utt]) for utt in names}
    rows, left_out, dense = [], {}, {}
    result = {"cpu": cpu(), "cpu_flags": cpu_flags(), "threads": args.threads, "set": args.set,
              "utterances": len(names), "left_out_longer": heard["longer"], "audio_seconds": heard["audio"],
              "rows": rows, "left_out": left_out}
    for name, files, job, make in jobs(args, folder):
        job |= {"threads": args.threads, "prompt": recogniser.prompt(), "folder": str(folder),
                "utterances": len(names)}
        python = args.peers_python if job["peer"] in ("ctranslate2", "whisper.cpp") else sys.executable
        try:
            make()
            size = sum(require_file(path, "the model").stat().st_size for path in files)
            found = json.loads(apart(python, [__file__, "--one", json.dumps(job)], args.threads).splitlines()[-1])
            if "left_out" in found:
                raise UserError(found["left_out"])
        except UserError as error:
            left_out[name] = str(error)
            continue
        said = [one if isinstance(one, str) else recogniser.text(one) for one in found.pop("said")]
        words = {utt: recogniser.normalise(one) for utt, one in zip(names, said, strict=True)}
        dense = dense or words
        seconds, used = ((found[key] + (heard[key] if job["peer"] == "ctranslate2" else 0)) / heard["audio"]
                         for key in ("seconds", "cpu_seconds"))
        rows.append({"name": name, "bytes": size, **score(wanted, words).row(), "rtf": seconds, "cpu_rtf": used,
                     "peak_rss_bytes": found["peak_rss_bytes"], "said": dict(zip(names, said, strict=True)),
                     "others": sum(words[utt] != dense[utt] for utt in names)})
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: done", file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hf", type=Path, required=True, help="folder of Hugging Face's with the dense model")
    parser.add_argument("--packed", type=Path, nargs="*", default=[], metavar="FILE", help="packed files of ours")
    parser.add_argument("--ctranslate2", type=Path, metavar="FOLDER", help="the dense model of CTranslate2, float16")
    parser.add_argument("--onnx", type=Path, nargs="*", default=[], metavar="FOLDER", help="exports for sherpa-onnx")
    parser.add_argument("--onnxruntime", type=Path, metavar="FOLDER", help="an export in float32 to be made "
                        "int8 by onnxruntime")
    parser.add_argument("--whisper-cpp", nargs="*", default=[], metavar="TYPE", help="f16, q8_0, q5_0")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has the peers' packages")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--set", default="dev-clean-2")
    parser.add_argument("--utterances", type=int, default=0, help="the first so many (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")  # again: what was left out
    show(result)


def show(result: Row) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['utterances']} utterances of {result['set']}, {result['audio_seconds']:.0f} s; "
                        f"{result['cpu']}, threads: {result['threads']}")
    for name in ("", "bytes", "WER %", "95 %", "others", "RTF", "CPU", "peak MiB"):
        table.add_column(name, justify="right" if name else "left")
    for row in result["rows"]:
        interval = "{:.2f}-{:.2f}".format(*row["ci95"]) if row["ci95"] else ""
        table.add_row(row["name"], f"{row['bytes']:,}", f"{row['wer']:.2f}", interval, str(row["others"]),
                      f"{row['rtf']:.4f}", f"{row['cpu_rtf']:.4f}", f"{row['peak_rss_bytes'] / 2**20:.0f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if result["left_out_longer"]:
        print(f"left out: {result['left_out_longer']} utterances longer than {WINDOW} s")
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--one"]:
            print(json.dumps(one(json.loads(sys.argv[2]))))
        else:
            main()
    except UserError as error:
        raise SystemExit(f"{error}") from None
