"""Spectral normalisation: layers whose weights are divided by their largest singular value.

A convolution's weight `[out, in, kh, kw]` counts as the matrix `[out, in kh kw]`.

In training the singular value is the paper's estimate: one power iteration per forward pass, from where the last one
ended. That follows weights which move slowly, and lags behind where two singular values change places. In evaluation
it is computed afresh, to about a thousandth, because an averaged network (`gankit.training.average.Teacher`) has
weights whose singular vectors are nobody's: the estimate with the trained network's vectors can be too small by a
fifth.

The layers hold their weight as it is, an ordinary parameter, and divide it in `forward`; the only state is the vector
u, a buffer. `torch.nn.utils.parametrizations.spectral_norm` replaces the weight by a computed one instead (initial
values written into it are lost) and updates u in a way that `vmap`, and so an `Ensemble`, cannot follow.

Source: Miyato, Kataoka, Koyama and Yoshida 2018, section 2.1 and algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUARINGS = 10  # 1,024 power iterations: sigma is at most ln(n) / 2048 too small for a matrix with n rows


class _SpectralNorm(nn.Module):
    """What the layers share.

    Attributes:
        weight: W, as the optimiser sees it.
        u: the first left singular vector as far as training has found it, `[out]`.
    """

    weight: nn.Parameter
    u: Tensor

    def draw_u(self) -> None:
        """Register u, a random direction (algorithm 1, first line)."""
        self.register_buffer("u", F.normalize(torch.randn(self.weight.shape[0]), dim=0))

    def sigma(self) -> Tensor:
        """W's largest singular value, a number with a gradient. In training this moves u."""
        w = self.weight.flatten(1)
        if self.training:
            u, v = power_iteration(w, self.u)
            with torch.no_grad():
                # In place, and a new tensor in the graph: a second forward pass must not change the first one's u.
                self.u.copy_(u)
        else:
            u, v = leading_vectors(w)
        # Equation 22. Products and sums, since autocast would round a matrix product to bfloat16.
        return (u * (w * v).sum(1)).sum()

    def normalised(self) -> Tensor:
        """W / sigma(W), the matrix that the layer multiplies by (equation 8)."""
        return self.weight / self.sigma()


@torch.no_grad()
def power_iteration(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors (u, v) of w `[out, in]`, one step better than `u` (equations 20 and 21)."""
    v = F.normalize((w * u[:, None]).sum(0), dim=0)
    u = F.normalize((w * v).sum(1), dim=0)
    return u, v


@torch.no_grad()
def leading_vectors(w: Tensor) -> tuple[Tensor, Tensor]:
    """First left and right singular vectors (u, v) of w `[out, in]`, without a start to depend on.

    Squaring W W^T ten times is as good as 1,024 power iterations from every start at once, in far fewer operations.
    """
    if w.shape[0] > w.shape[1]:
        v, u = leading_vectors(w.mT)
        return u, v
    power = w @ w.mT
    for _ in range(SQUARINGS):
        power = power / power.diagonal().amax()  # no entry is larger than the largest of the diagonal
        power = power @ power
    best = power.diagonal().argmax().reshape(1)
    return power_iteration(w, power.index_select(1, best).squeeze(1))


class SNConv2d(_SpectralNorm, nn.Conv2d):
    """`nn.Conv2d` with a spectrally normalised weight."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self.draw_u()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)


class SNLinear(_SpectralNorm, nn.Linear):
    """`nn.Linear` with a spectrally normalised weight."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self.draw_u()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SNEmbedding(_SpectralNorm, nn.Embedding):
    """`nn.Embedding` with a spectrally normalised table."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self.draw_u()

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.normalised())
