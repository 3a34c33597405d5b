"""The logistic function and the softplus as sympy functions whose numbers come from overflow-free code."""

from __future__ import annotations

import numpy as np
import sympy as sp
from scipy.special import expit


class sigmoid(sp.Function):
    """``1 / (1 + exp(-x))`` as a symbol of its own, so that numbers come from scipy's overflow-free `expit`."""

    @classmethod
    def eval(cls, x: sp.Expr) -> sp.Expr | None:
        return sp.Rational(1, 2) if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        s = sigmoid(self.args[0])
        return s * (1 - s)

    def _eval_rewrite_as_exp(self, x: sp.Expr, **kwargs: object) -> sp.Expr:
        return 1 / (1 + sp.exp(-x))

    def _latex(self, printer: object) -> str:
        return rf"\sigma\left({sp.latex(self.args[0])}\right)"


class softplus(sp.Function):
    """``log(1 + exp(x))``; the paper's phi(x) is ``softplus(-x)`` (LeakyEMA paper, eq. 8)."""

    @classmethod
    def eval(cls, x: sp.Expr) -> sp.Expr | None:
        return sp.log(2) if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sigmoid(self.args[0])

    def _eval_rewrite_as_exp(self, x: sp.Expr, **kwargs: object) -> sp.Expr:
        return sp.log(1 + sp.exp(x))

    def _latex(self, printer: object) -> str:
        return rf"\operatorname{{softplus}}\left({sp.latex(self.args[0])}\right)"


NUMPY = [{"sigmoid": expit, "softplus": lambda x: np.logaddexp(0.0, x)}, "numpy"]
"""The `modules` for `sympy.lambdify` of an expression with these functions."""
