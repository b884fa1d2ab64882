"""Real processes: one that is killed, and two that train together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import DenseAutoencoder, DenseConfig
from safetensors.torch import load_file

from hourglass.storage.atomic import read_json
from hourglass.training import TrainConfig, fit

PROGRAM = """
import atexit, sys, time
from pathlib import Path
import torch
from dense import DenseAutoencoder, DenseConfig
from hourglass.training import TrainConfig, fit

class Slow(DenseAutoencoder):
    def after_step(self, step):
        time.sleep(float(sys.argv[2]))

# One string, line end included: what two processes print in pieces may interleave.
atexit.register(lambda: print(f"at the end in a group: {torch.distributed.is_initialized()}\\n", end=""))
torch.manual_seed(0)
model = Slow(DenseConfig(noise=0.3))
rows = torch.randn(100, 8).numpy()
config = TrainConfig(steps=60, batch_size=8, lr=0.01, log_every=1, save_every=2, ema=0.9, accumulate=2)
fit(model, rows, config, out=Path(sys.argv[1]))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def environment():
    paths = [str(Path(__file__).parents[2] / "contract"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",  # gloo
    }


def run(program, out, *launcher, pause="0") -> str:
    command = [sys.executable, *launcher, str(program), str(out), pause]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_killed_run_ends_with_the_same_weights(tmp_path, program):
    run(program, tmp_path / "whole")
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(program), str(out), "0.01"], env=environment())
    deadline = time.monotonic() + 60
    while not (out / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < read_json(out / "checkpoint" / "state.json")["run"]["step"] < 60
    run(program, out)
    for name in ("model/model.safetensors", "checkpoint/training.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path, program):
    run(program, tmp_path / "one")
    # torchrun, because `accelerate launch --cpu --num_processes 2` starts a single process where there is no MPI.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    said = run(program, tmp_path / "two", *launcher)
    assert said.count("at the end in a group: False") == 2  # gloo's threads may abort a process that ends in one
    one, two = (read_json(tmp_path / name / "checkpoint" / "state.json") for name in ("one", "two"))
    assert two["identity"]["processes"] == 2
    assert [r["loss"] for r in two["run"]["history"]] == pytest.approx(
        [r["loss"] for r in one["run"]["history"]], rel=1e-4
    )
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def test_a_folder_of_two_processes_is_refused_by_one(tmp_path):
    config = TrainConfig(steps=2, batch_size=8)
    rows = np.zeros((10, 8), np.float32)
    fit(DenseAutoencoder(DenseConfig()), rows, config, out=tmp_path)
    state = tmp_path / "checkpoint" / "state.json"
    state.write_text(state.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(Exception, match="made with processes 2, now 1"):
        fit(DenseAutoencoder(DenseConfig()), rows, config, out=tmp_path)
