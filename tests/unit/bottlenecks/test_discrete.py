"""Hashing of vectors: what each method promises."""

from __future__ import annotations

import numpy as np
import pytest

from hourglass.bottlenecks.discrete import METHODS, Hasher, fit_hasher, rotation
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.metrics.codes import pack, unpack

ROWS = (np.random.default_rng(0).normal(size=(400, 16)) @ np.random.default_rng(1).normal(size=(16, 16)) + 2).astype(
    "f4"
)


def test_signs_and_medians():
    assert np.array_equal(fit_hasher("sign", ROWS).codes(ROWS), pack(ROWS > 0))
    bits = unpack(fit_hasher("median", ROWS).codes(ROWS), 16)
    assert np.allclose(bits.mean(0), 0.5, atol=0.01)


def test_hyperplanes_differ_in_as_many_bits_as_the_angle_says():
    random = np.random.default_rng(2)
    rows = random.normal(size=(2000, 3))
    rows -= rows.mean(0)
    bits = unpack(fit_hasher("hyperplanes", rows, bits=4096).codes(rows[:40]), 4096)
    unit = rows[:40] / np.linalg.norm(rows[:40], axis=1, keepdims=True)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    assert np.abs((bits[:, None] != bits[None]).mean(2) - angles).max() < 0.05


def test_the_rotation_is_orthogonal_and_nearer_to_signs_than_none():
    rows = ROWS - ROWS.mean(0)
    turned = rotation(rows.astype(float), np.random.default_rng(0))
    assert np.allclose(turned.T @ turned, np.eye(16), atol=1e-10)

    def off(r):
        return np.square(rows @ r - np.where(rows @ r > 0, 1, -1)).sum()

    start, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    assert off(turned) < off(start)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_gives_the_same_codes(method, tmp_path):
    hasher = fit_hasher(method, ROWS)
    hasher.save(tmp_path / "h.safetensors")
    assert np.array_equal(Hasher.load(tmp_path / "h.safetensors").codes(ROWS), hasher.codes(ROWS))
    assert hasher.bits == 16


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        fit_hasher("medain", ROWS)
    with pytest.raises(ConfigError, match="32 bits of 16 numbers by 'itq'"):
        fit_hasher("itq", ROWS, bits=32)
    with pytest.raises(ConfigError, match="8 bits"):
        fit_hasher("sign", ROWS, bits=8)
    with pytest.raises(InputError, match="finite"):
        fit_hasher("sign", np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="expected 16"):
        fit_hasher("sign", ROWS).codes(ROWS[:, :4])
    with pytest.raises(FolderError, match="no hasher"):
        Hasher.load("nowhere.safetensors")
