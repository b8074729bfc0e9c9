"""Cross-entropy against the tied embedding, in row blocks that stay in cache.

The logits of a batch (rows × 16 k in float32) are never held at once: each block's gradient is
taken while it is warm. Knows nothing of the model.
"""

import torch
from torch import Tensor

ROWS = 256


class HeadLoss(torch.autograd.Function):
    """Per-row losses weighted and summed; the gradient is made in the forward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        embed: Tensor,
        targets: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """hidden [rows, width], embed [vocab, width] → weighted sum, losses [rows]."""
        h, e = hidden.bfloat16(), embed.bfloat16()
        d_hidden = torch.empty_like(h)
        d_embed = torch.zeros_like(embed)
        losses = torch.empty(len(h))
        for start in range(0, len(h), ROWS):
            rows = slice(start, start + ROWS)
            logits = (h[rows] @ e.T).float()
            at = (torch.arange(len(logits)), targets[rows])
            top = logits.amax(1, keepdim=True)
            picked = logits[at] - top[:, 0]
            p = logits.sub_(top).exp_()
            total = p.sum(1, keepdim=True)
            losses[rows] = total[:, 0].log() - picked
            p.mul_(weights[rows, None] / total)
            p[at] -= weights[rows]
            g = p.bfloat16()
            d_hidden[rows] = g @ e
            d_embed += g.T @ h[rows]
        ctx.save_for_backward(d_hidden.float(), d_embed)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
        d_hidden, d_embed = ctx.saved_tensors
        return d_hidden * grad, d_embed * grad, None, None
