"""The engine "ray" on a local cluster of two workers leaves what one process leaves."""

import os
import sys

import pytest
import torch

import hourglass as hg
from corpus import documents, write_csv
from hourglass.adapters import ray_data
from hourglass.errors import FolderError, HourglassError, InputError, MissingExtra
from hourglass.uses import engines
from hourglass.uses.explore import build, learning

# Of Ray's own doings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")

SMALL = {"text": "body", "by": "topic", "width": 32, "k": 4, "progress": False}


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that two cores are two workers
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    torch.set_num_threads(threads)


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_bytes_as_in_one_process(cluster, causal_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHARD", 20)
    monkeypatch.setattr(learning, "LEARN_TOKENS", 500)  # learned on a sample, so that coding reads everything anew
    source = f"file://{write_csv(tmp_path / 'texts.csv', documents(40))}"
    reads = {"encoder": str(causal_folder / "llama"), "layer": 2}
    for engine in ("local", "ray"):
        hg.explore(source, out=tmp_path / engine, engine=engine, **reads, **SMALL)
    here, there = content(tmp_path / "local"), content(tmp_path / "ray")
    assert {"codes/00000.safetensors", "codes/00001.safetensors"} < set(here)
    assert not hg.open(tmp_path / "ray").manifest["learning"]["whole_corpus"]
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


@pytest.mark.parametrize(
    ("ends", "kind", "said"),
    [
        ("fault", InputError, "shard 2: no room"),
        ("death", HourglassError, "shard 2: 3 workers died of it; do they have enough memory?"),
    ],
)
def test_an_error_names_the_shard_and_keeps_what_was_done(cluster, ends, kind, said):
    def work(unit, advance):
        if unit == "shard 2" and ends == "fault":
            raise InputError("no room")
        if unit == "shard 2":
            os._exit(1)
        advance(7)
        return unit

    done, advanced = [], []
    with pytest.raises(kind) as error:
        done.extend(ray_data.on_cluster(work, ["shard 0", "shard 1", "shard 2"], advanced.append))
    assert str(error.value) == said
    assert advanced == [7, 7]


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path):
    ws = hg.explore(documents(20), out=tmp_path / "ws", **SMALL)
    ws.document_file(ws.shards[0]).unlink()
    with pytest.raises(FolderError, match=r"00000\.parquet: no such file on .*, where it is read"):
        next(ws.tables())


def test_without_ray_the_install_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hourglass-ai\[cluster\]'"):
        hg.explore(documents(20), out=tmp_path / "ws", engine="ray", **SMALL)
    assert not (tmp_path / "ws").exists()
    with pytest.raises(InputError, match=r"no engine 'dask' \(there are: local, ray\)"):
        engines.engine("dask")
