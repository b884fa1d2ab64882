"""A buffer that mixes: every row once, the same batches from the same seed, memory taken once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hourglass.data.mixing import MixingBuffer
from hourglass.errors import ConfigError, SourceError


def numbered(lengths):
    """Blocks of so many rows [n, 2], numbered through in the first column."""
    borders = np.append(0, np.cumsum(lengths)).astype(int)
    rows = torch.stack([torch.arange(borders[-1]), torch.zeros(borders[-1])], 1)
    return [rows[a:b] for a, b in pairwise(borders)]


def numbers(batches):
    return [batch[:, 0].int().tolist() for batch in batches]


@given(
    lengths=st.lists(st.integers(0, 30), max_size=12),
    capacity=st.integers(2, 40),
    size=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_every_row_is_served_once(lengths, capacity, size, seed):
    size = min(size, capacity // 2)
    buffer = MixingBuffer(capacity, 2, dtype=torch.float32, seed=seed)
    room = buffer._rows.data_ptr()
    batches = numbers(buffer.batches(numbered(lengths), size))
    assert sorted(row for batch in batches for row in batch) == list(range(sum(lengths)))
    assert all(len(batch) == size for batch in batches[:-1])
    assert buffer._rows.data_ptr() == room  # never taken anew
    assert buffer._rows.shape == (capacity, 2)
    whole = numbers(MixingBuffer(capacity, 2, dtype=torch.float32, seed=seed).batches(numbered([sum(lengths)]), size))
    assert batches == whole  # whatever the blocks
    assert batches == numbers(buffer.batches(numbered(lengths), size))  # and whatever was served before


def test_no_more_of_the_stream_is_read_than_there_is_room_for():
    read = 0

    def stream():
        nonlocal read
        for block in numbered([10] * 100):
            read += len(block)
            yield block.numpy()

    served = 0
    for batch in MixingBuffer(64, 2).batches(stream(), 8):
        served += len(batch)
        assert read - served <= 64 + 10
    assert served == 1000


def test_rows_are_mixed_as_far_as_the_buffer_reaches():
    batches = numbers(MixingBuffer(400, 2, dtype=torch.float32).batches(numbered([50] * 40), 20))
    spread = np.mean([np.ptp(batch) for batch in batches])
    assert spread > 300
    other = MixingBuffer(400, 2, dtype=torch.float32)
    assert numbers(other.batches(numbered([50] * 40), 20, epoch=1)) != batches
    assert numbers(MixingBuffer(400, 2, dtype=torch.float32, seed=1).batches(numbered([50] * 40), 20)) != batches


def test_batches_stay_as_they_were_served():
    kept = list(MixingBuffer(16, 2, dtype=torch.float32).batches(numbered([100]), 4))
    assert sorted(row for batch in numbers(kept) for row in batch) == list(range(100))


def test_half_precision_is_kept_and_served():
    buffer = MixingBuffer(8, 2)
    (batch,) = buffer.batches([np.full((3, 2), 0.1, np.float32)], 4)
    assert batch.dtype == torch.float16
    with pytest.raises(SourceError, match=r"not finite in torch\.float16; try torch\.float32"):
        list(buffer.batches([torch.full((1, 2), 1e6)], 4))


def test_a_second_pass_ends_the_first():
    buffer = MixingBuffer(8, 2)
    first = buffer.batches(numbered([40]), 2)
    next(first)
    assert sum(len(batch) for batch in buffer.batches(numbered([40]), 2)) == 40
    with pytest.raises(RuntimeError, match="another pass"):
        next(first)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="size 5: expected 1 to 4"):
        MixingBuffer(8, 2).batches([], 5)
    with pytest.raises(ConfigError, match=r"expected torch\.float16 or torch\.float32"):
        MixingBuffer(8, 2, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="capacity 1"):
        MixingBuffer(1, 2)
    with pytest.raises(SourceError, match="the buffer's are 2 wide"):
        list(MixingBuffer(8, 2).batches([torch.zeros(3, 1)], 2))
