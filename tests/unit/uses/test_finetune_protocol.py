"""The protocol of comparison: what is picked by what, on heads that say what they are told, and once on a real one."""

import json

import numpy as np
import pytest
import torch

from encoders import make_pair
from hourglass.errors import ConfigError, TrainingError
from hourglass.metrics.estimates import Estimate, of_seeds
from hourglass.training import TrainConfig
from hourglass.uses.finetune import Classifier, ClassifierConfig, FineTuned, fine_tune, recipe, sweep
from hourglass.waist import Waist, WaistConfig


class Told(Waist):
    """Scores by a table (data, rate): the rate is seen in how far one step moves the weight."""

    Config, modality = WaistConfig, "numbers"
    tables = {  # noqa: RUF012
        "validation": {1e-3: 0.5, 1e-2: 0.8, 1e-1: 0.7},
        "test": {1e-3: 0.9, 1e-2: 0.6, 1e-1: 0.2},
    }

    def __init__(self):
        super().__init__(WaistConfig())
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.noise = float(torch.randn(()))

    def collate(self, examples):
        return {"x": torch.tensor(examples)}

    def loss(self, batch):
        return {"loss": (self.weight - batch["x"]).square().mean()}

    def score(self, name):
        rate = min(self.tables[name], key=lambda rate: abs(rate - float(self.weight.detach())))
        return Estimate(self.tables[name][rate] + 0.01 * self.noise, np.nan, np.nan, 1)


class Bursting(Told):
    def loss(self, batch):
        return {"loss": super().loss(batch)["loss"] / (1 if float(self.weight.detach()) < 0.05 else 0)}


ONE_STEP = TrainConfig(steps=1, batch_size=2, schedule="constant", warmup=0.0)


def test_the_rate_is_picked_on_validation_data_and_judged_on_test_data():
    done = fine_tune(Told, [1e6, 1e6], "validation", "test", config=ONE_STEP, rates=(1e-3, 1e-2, 1e-1), seeds=(0, 1, 2))
    assert done.best == 1e-2
    assert done.validation.shape == done.scores.shape == (3, 3)
    # Every rate starts from the same weights of a seed, seeds from different ones.
    noise = done.scores - np.array([[0.9], [0.6], [0.2]])
    assert noise[0] == pytest.approx(noise[1]) and len(set(noise[0].round(9))) == 3
    assert done.test == of_seeds(done.scores[1])
    assert done.stability.spread == pytest.approx(0.7)
    assert done.stability.deviation == pytest.approx(np.std([0.9, 0.6, 0.2]))
    assert json.loads(json.dumps(done.to_dict()))["best"] == 1e-2


def test_runs_that_diverge_are_left_out_and_counted():
    two_steps = TrainConfig(steps=2, batch_size=2, schedule="constant", warmup=0.0)
    done = fine_tune(Bursting, [1e6, 1e6], "validation", "test", config=two_steps, rates=(1e-3, 1e-1), seeds=(0, 1))
    assert done.best == 1e-3
    assert done.stability.diverged == 1
    assert np.isnan(done.scores[1]).all()
    assert done.to_dict()["scores"][1] == [None, None]
    with pytest.raises(TrainingError, match=r"at every rate \(0.1\) a run diverges"):
        fine_tune(Bursting, [1e6, 1e6], "validation", "test", config=two_steps, rates=(1e-1,), seeds=(0,))
    with pytest.raises(ConfigError, match="one or more of each"):
        fine_tune(Told, [1.0], "validation", "test", rates=())


def test_the_recipe_of_the_paper():
    long, short = recipe(100_000), recipe(100)
    assert (long.steps, long.batch_size, long.schedule, long.warmup) == (1000, 32, "linear", 0.1)
    assert short.steps == 4
    assert recipe(5).batch_size == 5


def test_a_classifier_by_the_protocol():
    rows = [("red stone", "warm"), ("blue river", "cold")] * 16
    pair = make_pair()
    config = ClassifierConfig(labels=("warm", "cold"), max_tokens=16)
    done = fine_tune(
        lambda: Classifier(config, pair),
        rows,
        rows,
        rows,
        config=TrainConfig(steps=12, batch_size=8, schedule="linear", warmup=0.1),
        rates=(1e-6, 1e-2),
        seeds=(0, 1),
    )
    assert done.best == 1e-2
    assert done.test.value == 1
    assert 0 <= done.stability.spread <= 1


class Bent(Told):
    """Learns nothing of use; its score is the better, the nearer its bend is to 2."""

    def __init__(self, bend):
        super().__init__()
        self.bend = bend


def test_a_sweep_chooses_on_validation_data(tmp_path):
    tuned = []

    def tune(model):
        tuned.append((model.bend, model.noise, float(model.weight.detach())))
        near = -abs(model.bend - 2.0)
        scores = np.array([[near, near - 1], [near - 3, near - 3]])
        return FineTuned((0.1, 0.2), (0, 1), scores, scores[:, ::-1] * -10, 0.1)

    table = sweep((1, 2.5, 4), Bent, tune, [1e6, 1e6], ONE_STEP, out=tmp_path)
    assert table.value.tolist() == [1, 2.5, 4]
    assert table.chosen.tolist() == [False, True, False]  # the test scores say 4
    assert table.validation.tolist() == pytest.approx([-1.5, -1.0, -2.5])
    assert table.test.tolist() == pytest.approx([15, 10, 25])
    expected = of_seeds([-0.5, -1.5])
    assert table.loc[1, ["validation_low", "validation_high"]].tolist() == pytest.approx([expected.low, expected.high])
    assert table.rate.tolist() == [0.1] * 3
    assert table.spread.tolist() == pytest.approx([25, 25, 25])
    # All begin alike, and each was trained, in a folder of its own.
    assert len({noise for _, noise, _ in tuned}) == 1
    assert all(weight != 0 for _, _, weight in tuned)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2.5", "4"]
    for values in ((), (1, 1)):
        with pytest.raises(ConfigError, match="one or more, each once"):
            sweep(values, Bent, tune, [1.0], ONE_STEP)
