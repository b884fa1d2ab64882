"""Encoder and decoder as two autograd functions over the stored pairs of a batch, for whatever stands between them.

With x the input less its centre, S the stored pairs (row i, latent j), B rows, d columns:

    z_ij     = x_i . W_enc_j + b_enc_j  for S alone          dW_enc_j = sum_i dz_ij x_i    db_enc_j = sum_i dz_ij
                                                             dx_i     = sum_j dz_ij W_enc_j    dcentre = - db_enc W_enc
    e        = v W_dec + b - target                          dv_ij    = g_i . W_dec_j      db       = sum_i g_i
    loss     = sum e^2 / (B d), g = 2 e / (B d)              dW_dec_j = sum_i v_ij g_i

The work is that of `reconstruction.squared_error`, which is both with v = z, in two passes instead of one. Here too
the pairs are walked by compiled loops on the CPU and are dense products elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hourglass.bottlenecks.sparse import kernels
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.reconstruction import as_arrays, decode, errors, sums_by_pairs
from hourglass.nn.parallel import over_rows


def pre_activations(x: Tensor, centre: Tensor | None, encoder: Tensor, bias: Tensor, pairs: SparseCodes) -> Tensor:
    """[nnz] pre-activations of the stored `pairs`, in full precision; their values are not looked at.

    x        [n, d_in], and `centre` [d_in] or None, which is taken off
    encoder  [width, d_in], bias [width]
    """
    return _PreActivations.apply(x, centre, encoder, bias, pairs)


def reconstruction(
    values: Tensor,
    decoder: Tensor,
    bias: Tensor,
    target: Tensor,
    pairs: SparseCodes,
    *,
    tangent: bool = False,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, error): the mean squared error of activations `values` [nnz] of the stored `pairs`, decoded.

    decoder   [width, d], bias [d], target [n, d]
    tangent   take the part of the decoder's gradient along its rows out (rows have unit norm)
    products  number format of matrix products on devices other than the CPU

    `error` [n, d] is decoded - target, outside the graph.
    """
    loss, error = _Reconstruction.apply(values, decoder, bias, target, pairs, tangent, products or target.dtype)
    return loss, error


def per_latent(parameter: Tensor, pairs: SparseCodes) -> Tensor:
    """[nnz] the entry of `parameter` [width] that belongs to each stored pair.

    As indexing, but its gradient is summed in a fixed order: torch's adds up in whatever order threads come.
    """
    return _PerLatent.apply(parameter, pairs)


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, centre: Tensor | None, encoder: Tensor, bias: Tensor, pairs: SparseCodes
    ) -> Tensor:
        x = x if centre is None else x - centre
        ctx.save_for_backward(x, encoder, pairs.indices, pairs.offsets)
        ctx.width = pairs.width
        forward = _dots_by_pairs if x.device.type == "cpu" else _dots_by_products
        return forward(x, encoder, bias, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder, indices, offsets = ctx.saved_tensors
        to_x, to_centre, to_encoder, to_bias, _ = ctx.needs_input_grad
        codes = SparseCodes(indices, slopes, offsets, ctx.width)
        d_encoder, d_bias = _weighted_rows(codes, x, x.dtype)
        return (
            decode(codes, encoder, encoder.new_zeros(encoder.shape[1])) if to_x else None,
            -(d_bias @ encoder) if to_centre else None,
            d_encoder if to_encoder else None,
            d_bias if to_bias else None,
            None,
        )


class _Reconstruction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        decoder: Tensor,
        bias: Tensor,
        target: Tensor,
        pairs: SparseCodes,
        tangent: bool,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        codes = SparseCodes(pairs.indices, values, pairs.offsets, pairs.width)
        error, slopes, total = errors(codes, decoder, bias, target, products)
        ctx.save_for_backward(values, decoder, error, slopes, pairs.indices, pairs.offsets)
        ctx.settings = pairs.width, tangent, products
        ctx.mark_non_differentiable(error)
        return total / error.numel(), error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        values, decoder, error, slopes, indices, offsets = ctx.saved_tensors
        width, tangent, products = ctx.settings
        scale = upstream * (2 / error.numel())
        to_values, to_decoder, to_bias, to_target = ctx.needs_input_grad[:4]
        d_decoder = None
        if to_decoder:
            d_decoder, _ = _weighted_rows(SparseCodes(indices, values * scale, offsets, width), error, products)
            if tangent:
                along = torch.linalg.vecdot(d_decoder, decoder)
                d_decoder.addcmul_(along[:, None], decoder, value=-1)
        return (
            scale * slopes if to_values else None,
            d_decoder,
            scale * error.sum(0) if to_bias else None,
            -scale * error if to_target else None,
            None,
            None,
            None,
        )


class _PerLatent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, pairs: SparseCodes) -> Tensor:
        ctx.save_for_backward(pairs.indices, pairs.offsets)
        ctx.width = pairs.width
        return parameter[pairs.indices.long()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        indices, offsets = ctx.saved_tensors
        if slopes.device.type == "cpu":  # one thread walks the pairs
            return slopes.new_zeros(ctx.width).index_add_(0, indices, slopes), None
        return SparseCodes(indices, slopes, offsets, ctx.width).to_dense().sum(0), None


def _weighted_rows(codes: SparseCodes, rows: Tensor, products: torch.dtype) -> tuple[Tensor, Tensor]:
    """For each latent, sum of values times rows [width, d], and sum of values [width]."""
    backward = sums_by_pairs if rows.device.type == "cpu" else _sums_by_products
    return backward(codes, rows, products)


def _dots_by_pairs(x: Tensor, encoder: Tensor, bias: Tensor, pairs: SparseCodes) -> Tensor:
    z = x.new_empty(len(pairs.indices))
    indices, _, offsets = as_arrays(pairs, x.dtype)
    weights = (t.detach().contiguous().numpy() for t in (x, encoder, bias))
    over_rows(kernels.pre_activations, len(pairs), indices, offsets, *weights, z.numpy())
    return z


def _dots_by_products(x: Tensor, encoder: Tensor, bias: Tensor, pairs: SparseCodes) -> Tensor:
    return torch.addmm(bias, x, encoder.T)[pairs.rows, pairs.indices.long()]


def _sums_by_products(codes: SparseCodes, rows: Tensor, products: torch.dtype) -> tuple[Tensor, Tensor]:
    dense = codes.to_dense(rows.dtype)
    return (dense.T.to(products) @ rows.to(products)).to(rows.dtype), dense.sum(0)
