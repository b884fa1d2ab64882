from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from hourglass.errors import SourceError
from hourglass.training.order import in_order, open_order


def passes(data, batch_size, steps, seed=0):
    order = open_order(data, batch_size, seed)
    return [order.batch(step) for step in range(1, steps + 1)]


def test_every_pass_sees_every_example_once_in_an_order_of_its_own():
    seen = np.concatenate(passes(np.arange(10), 4, 5))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])


def test_a_batch_can_hold_several_passes():
    (batch,) = passes(np.arange(3), 7, 1)
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_the_seed_fixes_the_order_and_any_step_can_be_asked_first():
    whole = passes(np.arange(50), 8, 20, seed=3)
    assert np.array_equal(open_order(np.arange(50), 8, 3).batch(17), whole[16])
    assert not np.array_equal(open_order(np.arange(50), 8, 4).batch(1), whole[0])


def test_all_kinds_of_sequences_give_the_same_rows(tmp_path):
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(10, 2))
    expected = np.stack(passes(rows, 4, 3))
    assert np.array_equal(np.stack(passes(mapped, 4, 3)), expected)
    assert np.array_equal(torch.stack(passes(torch.from_numpy(rows), 4, 3)).numpy(), expected)
    assert np.array_equal(np.array(passes(list(rows), 4, 3)), expected)
    table = Dataset.from_dict({"row": rows.tolist()})
    assert np.array_equal([[example["row"] for example in batch] for batch in passes(table, 4, 3)], expected)


def test_arrays_are_read_with_one_access_a_batch():
    class Counted(np.ndarray):
        reads = 0

        def __getitem__(self, key):
            Counted.reads += 1
            return super().__getitem__(key)

    passes(np.zeros((100, 2)).view(Counted), 10, 5)
    assert Counted.reads == 5


class Stream:
    """Can be read again, has no length."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return iter(range(self.size))


def test_a_stream_keeps_its_order_and_begins_again():
    assert passes(Stream(5), 3, 4) == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]
    assert passes(Stream(2), 5, 1) == [[0, 1, 0, 1, 0]]


def test_a_stream_can_be_taken_up_anywhere():
    order = open_order(Stream(5), 3, 0)
    assert order.batch(4) == [4, 0, 1]
    assert order.batch(2) == [3, 4, 0]


@pytest.mark.parametrize("data", [np.arange(7), Stream(7)])
def test_the_first_batches_do_not_disturb_the_order(data):
    order = open_order(data, 3, 0)
    expected = [list(order.batch(step)) for step in (1, 2, 3)]
    order = open_order(data, 3, 0)
    first = order.first()
    assert [list(next(first)), list(next(first))] == expected[:2]
    assert [list(order.batch(step)) for step in (1, 2, 3)] == expected
    assert len(list(order.first())) == 3 if order.size else 2


def test_the_first_batch_of_a_short_stream_is_whole():
    assert list(open_order(Stream(2), 3, 0).first()) == [[0, 1, 0]]


def test_examples_are_named():
    order = open_order(np.arange(100), 10, 0)
    shown = ", ".join(map(str, order.batch(12)[:8]))
    assert order.describe(12) == f"epoch 1, examples {shown}, ..."
    assert open_order(Stream(5), 4, 0).describe(2) == "examples 4 to 7 of the stream"


def test_in_order():
    assert [list(batch) for batch in in_order(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(in_order(Stream(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data is empty"),
        (np.empty((0, 3)), "the data is empty"),
        ("a text", "data is a str: expected a sequence of examples"),
        ({"a": 1}, "data is a dict"),
        (3, "data is a int"),
        (iter([1]), "can be read only once"),
    ],
)
def test_data_that_cannot_be_used(data, message):
    with pytest.raises(SourceError, match=message):
        open_order(data, 2, 0)


def test_an_empty_stream():
    with pytest.raises(SourceError, match="the data is empty"):
        open_order(Stream(0), 2, 0).batch(1)
