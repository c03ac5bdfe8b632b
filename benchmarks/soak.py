"""The quickstart's sweep many times over, disturbed: processes are killed, the disk is full, the folder is read-only.

    recipes/quickstart/run.sh --stop-stage 3
    python benchmarks/soak.py --rounds 20 --disks        # --disks mounts small disks, which takes root

Every fault has to be one sentence without a traceback, and every rerun has to end with the table of a sweep that
nobody disturbed: the same models, each row once, the same errors and bytes. Anything else ends the program with 1.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asrcompress.report import rows

REPO = Path(__file__).parents[1]
OPTIONS = ["--stage", "4", "--stop-stage", "7", "--jobs", "2", "--epochs", "2", "--sizes", "0.5 0.25",
           "--finetune-epoch-fraction", "0.2", "--searches", "greedy"]
Table = list[tuple[object, ...]]


def start(folder: Path) -> "subprocess.Popen[str]":
    """Start the sweep in a folder, as the leader of a process group of its own."""
    command = [REPO / "recipes" / "quickstart" / "run.sh", "--dir", folder, *OPTIONS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(sweep: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and output of a sweep, once it has ended."""
    said, _ = sweep.communicate()
    return sweep.returncode, said


def processes(sweep: "subprocess.Popen[str]") -> list[int]:
    """The Python processes of a sweep: first the one that runs it, then its jobs and what they started."""
    said = subprocess.check_output(["ps", "-s", str(sweep.pid), "-o", "pid=,args="], text=True).splitlines()
    return [int(line.split()[0]) for line in said if "asrcompress.cli recipe" in line]


def table(folder: Path) -> Table:
    """What the rows of a sweep say apart from times, sorted; and the models that are done."""
    keys = ("name", "test_set", "search", "wer", "ter", "sub", "ins", "del", "packed_bytes")
    found = [tuple(row[key] for key in keys) for row in rows.read(folder / "results.jsonl")]
    return [*sorted(found, key=str), *sorted((path.parent.name,) for path in folder.glob("exp/*/.done"))]


def check(folder: Path, said: str, code: int, wanted: Table) -> None:
    """That a sweep ended well. Raises SystemExit with what is wrong."""
    if code:
        sys.exit(f"the rerun in {folder} failed:\n{said}")
    if (found := table(folder)) != wanted:
        sys.exit(f"the table in {folder} is another one:\n{set(map(str, found)) ^ set(map(str, wanted))}")


def sentences(folder: Path, said: str, fault: str) -> int:
    """How many sentences of a sweep and its jobs name a fault. Raises SystemExit for a traceback, and for none."""
    logs = [path.read_text(errors="replace") for path in folder.glob("log/*.log")]
    if any("Traceback" in text for text in [said, *logs]):
        sys.exit(f"a traceback in {folder}:\n{said}")
    if not (count := len(re.findall(fault, said))):
        sys.exit(f"no sentence in {folder} says '{fault}':\n{said}")
    return count


def disturbed(folder: Path, draw: random.Random, wanted: Table) -> str:
    """One round: kill one to three times, then let it run to its end; what was done, in words."""
    began, killed = time.time(), []
    for _ in range(draw.randint(1, 3)):
        sweep = start(folder)
        time.sleep(draw.uniform(3, 30))
        if running := processes(sweep):
            victim = draw.choice(running)
            killed.append("the sweep" if victim == running[0] else "a job")
            os.kill(victim, signal.SIGKILL)
        code, said = finish(sweep)
        if "Traceback" in said:
            sys.exit(f"a traceback after a kill in {folder}:\n{said}")
    code, said = finish(start(folder))
    check(folder, said, code, wanted)
    return f"killed {' and '.join(killed) or 'nothing, it had ended'}; the same table after {time.time() - began:.0f} s"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk in a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def full_disk(folder: Path, data: Path, wanted: Table, size: str) -> str:
    """A sweep on a disk that is too small, which then gets larger."""
    with disk(folder, size):
        (folder / "data").symlink_to(data)
        code, said = finish(start(folder))
        count = sentences(folder, said, "No space left on device")
        if not code:
            sys.exit(f"a sweep on a full disk of {size} ended well")
        remount(folder, "size=1g")
        code, said = finish(start(folder))
        check(folder, said, code, wanted)
    return f"a disk of {size}: {count} sentences, and the same table with more room"


def read_only(folder: Path, data: Path, wanted: Table) -> str:
    """A sweep in a folder that may only be read: at its start, and for its decodings."""
    with disk(folder, "1g"):
        (folder / "data").symlink_to(data)
        remount(folder, "ro")
        code, said = finish(start(folder))
        count = sentences(folder, said, "Read-only file system")
        remount(folder, "rw")
        sweep = start(folder)
        while not (folder / "exp" / "dense" / ".done").exists():
            time.sleep(0.5)
        sweep.kill()
        for process in processes(sweep):
            os.kill(process, signal.SIGKILL)
        sweep.wait()
        time.sleep(1)
        remount(folder, "ro")
        code, said = finish(start(folder))
        count += sentences(folder, said, "Read-only file system")
        remount(folder, "rw")
        code, said = finish(start(folder))
        check(folder, said, code, wanted)
    return f"a folder that may only be read: {count} sentences, and the same table when it may be written"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO / "recipes" / "quickstart" / "data")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--disks", action="store_true", help="also a full disk and a read-only one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data, draw = args.data.resolve(), random.Random(args.seed)
    with tempfile.TemporaryDirectory() as made:
        undisturbed = Path(made) / "undisturbed"
        undisturbed.mkdir()
        (undisturbed / "data").symlink_to(data)
        began = time.time()
        code, said = finish(start(undisturbed))
        wanted = table(undisturbed)
        check(undisturbed, said, code, wanted)
        print(f"undisturbed: {len(wanted)} rows and models in {time.time() - began:.0f} s", flush=True)
        if args.disks:
            for size in ("1m", "8m", "30m"):
                print(full_disk(Path(made) / size, data, wanted, size), flush=True)
            print(read_only(Path(made) / "read-only", data, wanted), flush=True)
        for number in range(1, args.rounds + 1):
            folder = Path(made) / f"round {number}"
            folder.mkdir()
            (folder / "data").symlink_to(data)
            print(f"round {number}: {disturbed(folder, draw, wanted)}", flush=True)
            shutil.rmtree(folder)
    print(f"{args.rounds} rounds: every rerun ended with the same table")


if __name__ == "__main__":
    main()
