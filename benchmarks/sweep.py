"""How a sweep scales: the quickstart's compressions on a Ray cluster of one and of two nodes of one core each.

    recipes/quickstart/run.sh --stop-stage 4
    python benchmarks/sweep.py

Every run compresses and fine-tunes the dense model to eight sizes, in a folder of its own, with one thread a job. The
machine has to be idle and needs two cores.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

REPO = Path(__file__).parents[1]
SIZES = "0.6 0.5 0.4 0.3 0.25 0.2 0.15 0.1"


def run(source: Path, folder: Path, *options: str) -> float:
    """Seconds of stage 6 from the dense model of `source`."""
    shutil.copytree(source / "exp" / "dense", folder / "exp" / "dense")
    (folder / "data").symlink_to((source / "data").resolve())
    command = [REPO / "recipes" / "quickstart" / "run.sh", "--dir", folder, "--stage", "6", "--stop-stage", "6",
               "--sizes", SIZES, *options]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - began


def on_ray(source: Path, folder: Path, nodes: int, options: list[str]) -> float:
    """Seconds on a cluster of so many nodes of one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1)
    try:
        return run(source, folder, *options, "--launcher", "ray", "--launcher-options", f"address={cluster.address}",
                   "--jobs", "8")
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=REPO / "recipes" / "quickstart", help="has data/ and exp/dense")
    parser.add_argument("options", nargs="*", help="options of run.sh, the same as the dense model was made with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        seconds = {"one process, --jobs 1": run(args.source, Path(made) / "alone", *args.options)}
        for nodes in (1, 2):
            name = f"Ray, {nodes} node{'s' * (nodes > 1)} of one core"
            seconds[name] = on_ray(args.source, Path(made) / str(nodes), nodes, args.options)
    table = Table("launcher", "seconds", "speed")
    for name, taken in seconds.items():
        table.add_row(name, f"{taken:.0f}", f"{seconds['Ray, 1 node of one core'] / taken:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
