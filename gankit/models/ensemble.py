"""S replicas of a network as one module: the seeds of a run side by side.

A small network spends most of its time on the overhead of starting each operation. S of them stacked into
one module pay that once: the forward maps `[S, N, ...]` to `[S, N, ...]`, a loss summed over S gives each
replica its own gradient, and Adam works element by element, so ten seeds cost little more than one.

    >>> G = Ensemble(lambda seed: gk.models.mlp(data.shape, seed=seed)[0], seeds=range(10))
    >>> G(torch.randn(10, 64, G.z_dim)).shape
    torch.Size([10, 64, 1, 8, 8])
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gankit.models.blocks import Squeeze

# Layers without parameters that act on the last dimensions and so do not notice a leading S. `Flatten` and
# `Unflatten` count dimensions from the end in every network of `gankit.models`.
_SHAPE_BLIND = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Flatten, nn.Unflatten, Squeeze)


class Ensemble(nn.Module):
    """S initialisations of a network, called as one: `[S, N, ...]` -> `[S, N, ...]`.

    A network of linear layers becomes stacked matrices multiplied by `torch.baddbmm`, the fastest form on a
    CPU. Anything else (convolutions, normalisation) is stacked by `torch.func`. Batch norm's running
    statistics are stacked as well: each replica normalises by its own minibatch and keeps its own
    statistics, exactly as it would alone.

    Args:
        factory: seed -> module. The modules may differ in their numbers only, not in structure.
        seeds: S seeds. Equal seeds give replicas with equal initial weights, which, with different costs,
            are a *paired* comparison: they also share z and data.

    Attributes:
        replicas: S.
        seeds: the seeds, one per replica.
        Any other attribute is looked up in the network itself (`z_dim`, `shape`, `n_classes`).

    Raises:
        ValueError: if `seeds` is empty or the factory's modules differ in structure.
    """

    def __init__(self, factory: Callable[[int], nn.Module], seeds: Sequence[int]) -> None:
        super().__init__()
        if len(seeds) == 0:
            raise ValueError("seeds is empty: give one seed per replica")
        self.seeds = tuple(int(seed) for seed in seeds)
        self.replicas = len(self.seeds)
        unique = {seed: factory(seed) for seed in dict.fromkeys(self.seeds)}
        modules = [unique[seed] for seed in self.seeds]
        _check_same_structure(modules)
        # The template gives structure and attributes and never runs on its own weights. In a list it stays
        # out of the parameters of this module.
        self._template = [modules[0]]
        self.net = _stack_linear(modules) if _is_linear(modules[0]) else _Vmapped(modules)

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[0] != self.replicas:
            raise ValueError(
                f"x must have shape [S, N, ...] with S = {self.replicas} replicas, got {tuple(x.shape)}"
            )
        return self.net(x, *args)

    def replica(self, i: int) -> nn.Module:
        """Replica i as a plain network of its own, with copied weights.

        Raises:
            IndexError: if i is not in 0..S-1.
        """
        if not 0 <= i < self.replicas:
            raise IndexError(f"replica {i} is not among the {self.replicas} replicas 0..{self.replicas - 1}")
        module = copy.deepcopy(self._template[0]).to(next(self.parameters()))
        stacked = self.net.state_dict()
        prefix = "" if not isinstance(self.net, _Vmapped) else "stacked."
        with torch.no_grad():
            for name, value in module.state_dict().items():
                key = prefix + name.replace(".", "/") if prefix else name
                value.copy_(stacked[key][i])
        return module.train(self.training)

    def call(self, method: str, *args: Tensor | None) -> Tensor:
        """What a method of the network gives for every replica's own arguments, `[S, N, ...]` each.

        Raises:
            ValueError: for a network of linear layers, which has no methods but `forward`.
        """
        if not isinstance(self.net, _Vmapped):
            raise ValueError(f"{type(self.template).__name__} is stacked layer by layer and has no {method}")
        return self.net(*args, method=method)

    @property
    def template(self) -> nn.Module:
        """A plain network of the replicas' structure, with its parameters in the order of this module's.

        Their values mean nothing: `replica` has the trained ones.
        """
        return self._template[0]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return getattr(self._template[0], name)

    def extra_repr(self) -> str:
        return f"replicas={self.replicas}"


def pair(
    factory: Callable[[int], tuple[nn.Module, nn.Module]], seeds: Sequence[int]
) -> tuple[Ensemble, Ensemble]:
    """Ensembles of generators and of discriminators from a factory of both: seed -> (G, D).

    >>> G, D = pair(lambda seed: gk.models.mlp(data.shape, seed=seed), seeds=range(10))
    """
    return Ensemble(lambda s: factory(s)[0], seeds), Ensemble(lambda s: factory(s)[1], seeds)


def call(net: nn.Module, method: str, *args: Tensor | None) -> Tensor:
    """`net.method(*args)`, of an ensemble for each replica: `[*lead, N, ...]`."""
    return net.call(method, *args) if isinstance(net, Ensemble) else getattr(net, method)(*args)


def lead_shape(net: nn.Module) -> tuple[int, ...]:
    """(S,) for an ensemble (or a union of some) and () for a plain network: what stands before the samples."""
    return (net.replicas,) if hasattr(net, "replicas") else ()


def layers_of(net: nn.Module) -> Iterator[nn.Module]:
    """The modules that compute, of a plain network or of an ensemble, whose layers each serve all replicas.

    What is set on one of them (its momentum, its mode) holds for all replicas; parameters are to be found in `net`.
    """
    yield from net.modules()
    for module in net.modules():
        if isinstance(module, _Vmapped):
            yield from module._skeleton[0].modules()


def mixes_samples(D: nn.Module) -> bool:
    """Whether what D says of a sample depends on the others of its minibatch.

    A layer that mixes samples declares it with an attribute `mixes_samples = True`; PyTorch's batch norm is known.
    """
    if D not in _MIXES:  # a walk over all layers in every step would cost a small network a twentieth of it
        mixing = (
            getattr(m, "mixes_samples", isinstance(m, nn.modules.batchnorm._BatchNorm)) for m in layers_of(D)
        )
        _MIXES[D] = any(mixing)
    return _MIXES[D]


_MIXES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class StackedLinear(nn.Module):
    """S linear layers: `[S, N, n_in]` -> `[S, N, n_out]`.

    Weights are stored `[S, n_out, n_in]`, the stack of what `nn.Linear` stores, so names and shapes of an
    ensemble's state are those of one network with S in front.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        bias = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(bias)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        # Columns are samples: W x + b. Weight gradients then come out in the order of the weights.
        if self.bias is None:
            return torch.bmm(self.weight, x.mT).mT
        return torch.baddbmm(self.bias[:, :, None], self.weight, x.mT).mT

    def extra_repr(self) -> str:
        s, n_out, n_in = self.weight.shape
        return f"replicas={s}, in_features={n_in}, out_features={n_out}"


class _Vmapped(nn.Module):
    """Any network, stacked by `torch.func`: every parameter and buffer gains a leading S.

    A module may name `static_buffers`: these are the same for all replicas, and the forward pass may read them as
    numbers (a growing network's stage).
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = torch.func.stack_module_state(list(modules))
        self.stacked = nn.Module()
        for name, value in parameters.items():
            self.stacked.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach()))
        for name, value in buffers.items():
            self.stacked.register_buffer(name.replace(".", "/"), value)
        self._skeleton = [copy.deepcopy(modules[0]).to("meta")]
        self._static = {
            f"{name}.{buffer}".removeprefix(".")
            for name, module in modules[0].named_modules()
            for buffer in getattr(module, "static_buffers", ())
        }

    def train(self, mode: bool = True) -> _Vmapped:
        self._skeleton[0].train(mode)
        return super().train(mode)

    def forward(self, *args: Tensor | None, method: str | None = None) -> Tensor:
        parameters = {name.replace("/", "."): p for name, p in self.stacked.named_parameters()}
        buffers = {name.replace("/", "."): b for name, b in self.stacked.named_buffers()}
        static = {name: buffers.pop(name)[0] for name in self._static}
        given = [x for x in args if x is not None]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            net, own, inputs = self._skeleton[0], (parameters, buffers, static), list(inputs)
            inputs = [None if x is None else inputs.pop(0) for x in args]
            if method is None:
                return torch.func.functional_call(net, own, tuple(inputs))
            own = tuple({f"net.{name}": x for name, x in part.items()} for part in own)
            return torch.func.functional_call(_Method(net, method), own, tuple(inputs))

        return torch.func.vmap(one, randomness="different")(parameters, buffers, *given)


class _Method(nn.Module):
    """A network called by one of its methods."""

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__()
        self.net, self.method = net, method

    def forward(self, *args: Tensor | None) -> Tensor:
        return getattr(self.net, self.method)(*args)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and all(
        type(layer) is nn.Linear or isinstance(layer, _SHAPE_BLIND) for layer in module
    )


def _stack_linear(modules: Sequence[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for same in zip(*modules, strict=True):
        layers.append(StackedLinear(same) if isinstance(same[0], nn.Linear) else copy.deepcopy(same[0]))
    return nn.Sequential(*layers)


def _check_same_structure(modules: Sequence[nn.Module]) -> None:
    def outline(module: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in module.state_dict().items()}

    first = outline(modules[0])
    for i, module in enumerate(modules):
        if outline(module) != first:
            raise ValueError(
                f"factory must build the same structure for every seed; replica {i} differs from replica 0"
            )
