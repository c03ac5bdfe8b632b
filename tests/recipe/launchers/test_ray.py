"""A real Ray cluster of two nodes on this machine, of which one is killed in the middle."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asrcompress.errors import UserError
from asrcompress.recipe import graph, launchers
from tests.recipe.launchers import small_sweep
from tests.recipe.test_recipe import needs_k2

pytestmark = [pytest.mark.slow, needs_k2]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; the first is the one that the sweep is connected to."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def test_a_killed_node_loses_nothing_and_doubles_no_row(tiny_corpus: Path, tmp_path: Path, cluster: Any) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "ray"
    given = small_sweep.settings(tiny_corpus)
    small_sweep.prepare(alone, given)
    shutil.copytree(alone, folder)
    there = replace(given, launcher="ray", launcher_options=(f"address={cluster.address}",), jobs=4)
    sweep = small_sweep.start(folder, graph.STAGES, there)
    lost = cluster.list_all_nodes()[-1]
    while len(list((folder / "exp").glob("svd*/.started"))) < 2:  # until both nodes work
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.05)
    cluster.remove_node(lost, allow_graceful=False)
    said, _ = sweep.communicate()
    assert sweep.returncode == 0, said
    assert "was lost; it is started once more" in said
    assert small_sweep.whole(folder)
    one_by_one = small_sweep.start(alone, graph.STAGES, given)
    assert one_by_one.communicate() and one_by_one.returncode == 0
    assert small_sweep.rates(folder) == small_sweep.rates(alone)
    again = small_sweep.start(folder, graph.STAGES, given)  # without Ray, and there is nothing to do
    assert "exp" not in again.communicate()[0] and again.returncode == 0


def test_what_ray_cannot_do_is_a_sentence(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(UserError, match="no machine of the Ray cluster has 64 CPUs and 0 GPUs"):
        launchers.build("ray", (f"address={cluster.address}", "cpus=64"), 1, tmp_path)
    with pytest.raises(UserError, match="there is no Ray cluster at '127.0.0.1:9'"):
        launchers.build("ray", ("address=127.0.0.1:9",), 1, tmp_path)


def test_status_and_output(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = launchers.build("ray", (f"address={cluster.address}",), 1, tmp_path)
    handles = [launcher.start(["sh", "-c", f"pwd; echo $WORD; exit {status}"], {"WORD": "a b"}, Path("log", "a"))
               for status in (0, 3)]
    found = [small_sweep.ended(launcher, handle) for handle in handles]
    launcher.close()
    assert found == [0, 3] and Path("log", "a").read_text() == f"{tmp_path}\na b\n" * 2
