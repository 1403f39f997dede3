"""Attention and group normalisation, in float32 where a CPU's kernel for half precision is slower.

On a GPU autocast itself takes GroupNorm to float32, and attention has fused kernels in bfloat16.
On a CPU with AVX-512 the bfloat16 kernels of both cost about twice the float32 ones, casts
included, while convolutions and products gain from bfloat16; autocast does not tell them apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def slow_in_half(x: Tensor) -> bool:
    """Returns whether x is in half precision on a CPU."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Returns softmax(QKᵀ/√d + b) V, (B, heads, N, d) like q and of its dtype.

    Args:
        q: (B, heads, N, d).
        k: (B, heads, M, d).
        v: (B, heads, M, d).
        bias: b, what broadcasts to (B, heads, N, M), or a mask of what is read.
        causal: Whether position n reads positions 1 … n only.
    """
    if not slow_in_half(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)
    if bias is not None and bias.dtype != torch.bool:
        bias = bias.float()
    with torch.autocast("cpu", enabled=False):  # which would take them back to bfloat16
        values = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=bias, is_causal=causal
        )
    return values.to(q.dtype)


class GroupNorm(nn.GroupNorm):
    """PyTorch's, with the mean and the variance of half precision in float32 on a CPU too."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps (B, C, ...) to the same shape and dtype."""
        if not slow_in_half(input):
            return super().forward(input)
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)
