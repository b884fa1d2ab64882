"""The squared error of a sparse code and its closed-form gradients, which touch active latents only.

With x the input less its centre, z = x W_enc^T + b_enc, v the active part of z, e = v W_dec + b - target, B rows of
the target, d columns:

    loss     = sum e^2 / (B d)          the mean over rows and columns
    g        = 2 e / (B d)
    dv       = g . W_dec[j]             for the active pairs (i, j) alone
    dW_enc_j = sum_i dv_ij x_i          db_enc_j = sum_i dv_ij
    dW_dec_j = sum_i v_ij g_i           db = sum_i g_i
    dx_i     = sum_j dv_ij W_enc_j      dcentre = - db_enc W_enc

Autograd of the dense formula does width / k times this work. On the CPU the pairs are walked by compiled loops
(`kernels.py`), float32 or float64; elsewhere dense matrix products are faster than scattered ones, and they are
reproducible, which atomic additions are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hourglass.bottlenecks.sparse import kernels
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.nn.parallel import over_rows


def squared_error(
    x: Tensor,
    centre: Tensor,
    target: Tensor,
    codes: SparseCodes,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor | None,
    *,
    tangent: bool = False,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, error): the mean squared error of `codes` decoded against `target`, and what is left of the target.

    x             [n, d_in] what the encoder saw, and `centre` [d_in], which it took off
    target        [n, d]
    codes         active latents of x - centre under `encoder` and `encoder_bias`; which ones is held fixed
    encoder       [width, d_in], encoder_bias [width], decoder [width, d], bias [d] or None for no offset
    tangent       take the part of the decoder's gradient along its rows out (rows have unit norm)
    products      number format of matrix products on devices other than the CPU

    `error` [n, d] is decoded - target, outside the graph.
    """
    loss, error = _SquaredError.apply(
        x, centre, target, encoder, encoder_bias, decoder, bias, codes, tangent, products or x.dtype
    )
    return loss, error


def decode(codes: SparseCodes, decoder: Tensor, bias: Tensor) -> Tensor:
    """[n, d]: bias plus the active rows of `decoder` [width, d], weighted. Outside the graph."""
    decoder, bias = decoder.detach(), bias.detach()
    if decoder.device.type != "cpu":
        return torch.addmm(bias, codes.to_dense(decoder.dtype), decoder)
    out = torch.empty(len(codes), decoder.shape[1], dtype=decoder.dtype)
    over_rows(kernels.decode, len(codes), *as_arrays(codes, decoder.dtype), decoder.numpy(), bias.numpy(), out.numpy())
    return out


def unit_rows_(weight: Tensor) -> None:
    """Scale each row of `weight` [n, d] to norm 1, in place; a zero row stays zero."""
    weight = weight.detach()
    if weight.device.type == "cpu":
        over_rows(kernels.unit_rows, len(weight), weight.numpy())
    else:
        weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_min_(torch.finfo(weight.dtype).tiny))


def errors(
    codes: SparseCodes, decoder: Tensor, bias: Tensor, target: Tensor, products: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(error, slopes, total): decoded - target [n, d], error . decoder row of each pair [nnz], sum of the squared error."""
    forward = _errors_by_pairs if target.device.type == "cpu" else _errors_by_products
    return forward(codes, decoder, bias, target, products)


def as_arrays(codes: SparseCodes, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """Indices, values and offsets as the compiled loops take them."""
    return (
        codes.indices.to(torch.int32).numpy(),
        codes.values.detach().to(dtype).contiguous().numpy(),
        codes.offsets.numpy(),
    )


def sorted_by_latent(indices: Any, offsets: Any, width: int) -> tuple[Any, Any, Any]:
    """The pairs in the order of their latents: `starts` [width + 1], `rows` and `pairs` [nnz]."""
    starts = np.empty(width + 1, np.int64)
    rows = np.empty(len(indices), np.int32)
    pairs = np.empty(len(indices), np.int64)
    kernels.by_latent(indices, offsets, starts, rows, pairs)
    return starts, rows, pairs


def sums_by_pairs(codes: SparseCodes, rows: Tensor, _: torch.dtype) -> tuple[Tensor, Tensor]:
    """For each latent, sum of values times rows [width, d], and sum of values [width], on the CPU."""
    indices, values, offsets = as_arrays(codes, rows.dtype)
    sums, totals = rows.new_empty(codes.width, rows.shape[1]), rows.new_empty(codes.width)
    over_rows(
        kernels.weighted_rows,
        codes.width,
        *sorted_by_latent(indices, offsets, codes.width),
        values,
        *(t.detach().contiguous().numpy() for t in (rows, sums, totals)),
    )
    return sums, totals


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        centre: Tensor,
        target: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        decoder: Tensor,
        bias: Tensor | None,
        codes: SparseCodes,
        tangent: bool,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        offset = decoder.new_zeros(decoder.shape[1]) if bias is None else bias
        error, slopes, total = errors(codes, decoder, offset, target, products)
        ctx.save_for_backward(x - centre, encoder, decoder, error, slopes, codes.indices, codes.values, codes.offsets)
        ctx.settings = codes.width, tangent, products
        ctx.mark_non_differentiable(error)
        return total / error.numel(), error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder, decoder, error, slopes, indices, values, offsets = ctx.saved_tensors
        width, tangent, products = ctx.settings
        codes = SparseCodes(indices, values, offsets, width)
        scale = upstream * (2 / error.numel())
        to_x, to_centre, to_target, to_encoder, to_encoder_bias, to_decoder, to_bias = ctx.needs_input_grad[:7]
        d_encoder = d_encoder_bias = d_decoder = d_x = None
        if to_centre or to_encoder or to_encoder_bias or to_decoder:
            backward = _gradients_by_pairs if x.device.type == "cpu" else _gradients_by_products
            d_encoder, d_encoder_bias, d_decoder = backward(codes, slopes, x, error, decoder, scale, tangent, products)
        if to_x:
            d_x = decode(
                SparseCodes(indices, slopes * scale, offsets, width), encoder, encoder.new_zeros(encoder.shape[1])
            )
        return (
            d_x,
            -(d_encoder_bias @ encoder) if to_centre else None,
            -scale * error if to_target else None,
            d_encoder if to_encoder else None,
            d_encoder_bias if to_encoder_bias else None,
            d_decoder if to_decoder else None,
            scale * error.sum(0) if to_bias else None,
            None,
            None,
            None,
        )


def _errors_by_pairs(
    codes: SparseCodes, decoder: Tensor, bias: Tensor, target: Tensor, products: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    error = torch.empty_like(target, memory_format=torch.contiguous_format)
    slopes = error.new_empty(len(codes.indices))
    squares = error.new_empty(len(target))
    arrays = (t.detach().contiguous().numpy() for t in (decoder, bias, target, error, slopes, squares))
    over_rows(kernels.errors, len(target), *as_arrays(codes, target.dtype), *arrays)
    return error, slopes, squares.sum()


def _gradients_by_pairs(
    codes: SparseCodes, slopes: Tensor, x: Tensor, error: Tensor, decoder: Tensor, scale: Tensor, tangent: bool, _: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if x.shape[1] != error.shape[1]:  # the loop below walks both in step
        d_encoder, d_bias = sums_by_pairs(codes.with_values(slopes * scale), x, x.dtype)
        d_decoder, _ = sums_by_pairs(codes.with_values(codes.values * scale), error, x.dtype)
        return d_encoder, d_bias, _tangent(d_decoder, decoder) if tangent else d_decoder
    indices, values, offsets = as_arrays(codes, x.dtype)
    d_encoder, d_decoder = torch.empty_like(decoder), torch.empty_like(decoder)
    d_bias = decoder.new_empty(codes.width)
    factor = scale.to(x.dtype).numpy()[()]
    over_rows(
        kernels.weight_gradients,
        codes.width,
        *sorted_by_latent(indices, offsets, codes.width),
        values,
        *(t.detach().contiguous().numpy() for t in (slopes, x, error, decoder)),
        factor,
        factor.dtype.type(tangent),
        *(t.numpy() for t in (d_encoder, d_bias, d_decoder)),
    )
    return d_encoder, d_bias, d_decoder


def _errors_by_products(
    codes: SparseCodes, decoder: Tensor, bias: Tensor, target: Tensor, products: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    weight = decoder.to(products)
    error = (codes.to_dense(products) @ weight).to(target.dtype) + (bias - target)
    slopes = (error.to(products) @ weight.T)[codes.rows, codes.indices.long()].to(target.dtype)
    return error, slopes, error.square().sum()


def _gradients_by_products(
    codes: SparseCodes,
    slopes: Tensor,
    x: Tensor,
    error: Tensor,
    decoder: Tensor,
    scale: Tensor,
    tangent: bool,
    products: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    dense_slopes = SparseCodes(codes.indices, slopes, codes.offsets, codes.width).to_dense()
    d_encoder = (dense_slopes.T.to(products) @ x.to(products)).to(decoder.dtype) * scale
    d_decoder = (codes.to_dense(products).T @ error.to(products)).to(decoder.dtype) * scale
    return d_encoder, dense_slopes.sum(0) * scale, _tangent(d_decoder, decoder) if tangent else d_decoder


def _tangent(gradient: Tensor, rows: Tensor) -> Tensor:
    """`gradient` [n, d] without its part along unit `rows` [n, d], in place."""
    return gradient.sub_((gradient * rows).sum(1, keepdim=True) * rows)
