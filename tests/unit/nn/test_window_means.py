"""Means of a few rows are those of gathering the rows, with the gradients of autograd."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.nn import window_means as module
from hourglass.nn.window_means import window_means


def drawn(seed, n=7, most=6, rows=11, d=70):
    generator = torch.Generator().manual_seed(seed)
    windows = torch.randint(-2, rows, (n, most), generator=generator).clamp(min=-1)
    return torch.randn(rows, d, generator=generator), windows


def both(table, windows):
    """(means, gradient) of ours and of what gathers."""
    found = []
    for form in (window_means, module._gathered):
        leaf = table.clone().requires_grad_()
        made = form(leaf, windows)
        shares = torch.linspace(-1, 1, made.numel()).view_as(made)
        found.append((made.detach(), torch.autograd.grad((shares * made).sum(), leaf)[0]))
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([1, 3, 80]), st.sampled_from([1, 10]))
def test_means_and_gradients_are_those_of_autograd(seed, n, most):
    ours, theirs = both(*drawn(seed, n=n, most=most))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_window_of_no_row_is_zeros():
    table, windows = drawn(0)
    windows[2] = -1
    (means, slopes), _ = both(table, windows)
    assert not means[2].any()
    assert torch.isfinite(slopes).all()


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    made = drawn(0, n=300, rows=40, d=400)
    first = both(*made)[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(torch.equal, first, both(*made)[0]))
