"""Muon for matrices and AdamW for the rest. Knows parameters only.

Muon (Keller Jordan, 2024): momentum, then the nearest orthogonal matrix by Newton-Schulz.
"""

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor) -> Tensor:
    """About U Vᵀ of g = U S Vᵀ, over the last two dimensions; five Newton-Schulz steps in BF16."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised, scaled so that an update's root mean square is 0.2 × lr."""

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(m, group["momentum"]))
                scale = 0.2 * max(p.shape[-2:]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)


def make_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon over matrices and stacked experts; AdamW over embedding, routers and norms."""
    named = dict(model.named_parameters())
    is_matrix = {n: p.ndim >= 2 and n != "embed" and "router" not in n for n, p in named.items()}
    matrices = [p for n, p in named.items() if is_matrix[n]]
    rest = [p for n, p in named.items() if not is_matrix[n]]
    muon = Muon(matrices, lr=lr, weight_decay=0.05)
    adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    for group in [*muon.param_groups, *adam.param_groups]:
        group["peak_lr"] = group["lr"]
    return [muon, adam]
