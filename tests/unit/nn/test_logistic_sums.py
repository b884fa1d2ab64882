"""Logistic losses over a few rows are those of gathering the rows, with the gradients of autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.nn import logistic_sums as module
from hourglass.nn.logistic_sums import logistic_sums


def drawn(seed, n=7, rows=11, d=5, most=9, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most, (n,), generator=generator)
    m = int(counts.sum())
    return (
        *(scale * torch.randn(shape, generator=generator) for shape in ((n, d), (rows, d), (rows,))),
        torch.randint(0, rows, (m,), generator=generator),
        2.0 * torch.randint(0, 2, (m,), generator=generator) - 1,
        torch.rand(m, generator=generator),
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
    )


def both(made):
    """(losses, gradients) of ours and of what gathers."""
    found = []
    for form in (logistic_sums, module._gathered):
        leaves = [part.clone().requires_grad_() for part in made[:3]]
        losses = form(*leaves, *made[3:])
        shares = torch.arange(1.0, len(losses) + 1)
        found.append((losses.detach(), torch.autograd.grad((shares * losses).sum(), leaves)))
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([1, 3, 80]), st.sampled_from([0.1, 1.0, 30.0]))
def test_losses_and_gradients_are_those_of_autograd(seed, n, scale):
    ours, theirs = both(drawn(seed, n=n, scale=scale))
    assert torch.allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(ours[1], theirs[1]):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * max(1.0, scale) * n)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    made = drawn(0, n=300, rows=400, d=16, most=40)
    first = both(made)[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again = both(made)[0]
    assert torch.equal(first[0], again[0])
    assert all(map(torch.equal, first[1], again[1]))


def test_rows_do_not_depend_on_those_beside_them():
    hidden, out, bias, rows, labels, weights, ends = drawn(3)
    whole = logistic_sums(hidden, out, bias, rows, labels, weights, ends)
    for i in range(len(hidden)):
        part = slice(int(ends[i]), int(ends[i + 1]))
        alone = torch.tensor([0, part.stop - part.start])
        one = logistic_sums(hidden[i : i + 1], out, bias, rows[part], labels[part], weights[part], alone)
        assert torch.equal(one[0], whole[i])


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_large_logits_overflow_nowhere(logit):
    out, one = torch.ones(1, 1), torch.ones(1)
    hidden = torch.full((1, 1), logit, requires_grad=True)
    loss = logistic_sums(hidden, out, torch.zeros(1), torch.zeros(1, dtype=torch.int64), one, one, torch.tensor([0, 1]))
    (slope,) = torch.autograd.grad(loss.sum(), hidden)
    assert np.allclose([loss.item(), slope.item()], [max(-logit, 0), -1.0 if logit < 0 else 0.0], atol=1e-5)


def test_the_exponential_and_the_logarithm_are_those_of_the_library():
    x = np.linspace(0, 80, 4001, dtype=np.float32)
    small = np.array([module._exp(-value) for value in x], np.float64)
    assert np.abs(small / np.exp(-x.astype(float)) - 1).max() < 4e-6
    assert module._exp(np.float32(-1e30)) < 2e-35
    logs = np.array([module._log1p(np.float32(value)) for value in small])
    assert np.allclose(logs, np.log1p(small), rtol=4e-7, atol=0)
