"""Advice about memory changes nothing that is in it."""

import numpy as np
import pytest

from hourglass.storage import memory


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("size", [0, 1000, 3 << 20, 40 << 20])
def test_the_contents_stay(size, system, monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", system)
    array = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    before, place = array.copy(), array.ctypes.data
    memory.in_large_pages(array)
    assert array.ctypes.data == place
    assert np.array_equal(array, before)


def test_what_is_asked_for_lies_within_the_array(monkeypatch):
    asked = []

    class System:
        def madvise(self, start, size, advice):
            asked.append((start.value, size.value, advice))

    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: System())
    array = np.zeros(7 << 20, np.uint8)
    memory.in_large_pages(array)
    assert [advice for *_, advice in asked] == [14, 25]
    for start, size, _ in asked:
        assert start % (2 << 20) == 0
        assert size >= 4 << 20
        assert array.ctypes.data <= start
        assert start + size <= array.ctypes.data + array.nbytes
