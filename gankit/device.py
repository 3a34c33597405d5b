"""Where and how a network runs: the device, its precision, the number of CPU threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode

Values = float | bool | tuple["Values", ...]

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
"""Name -> type of what matrix products and convolutions give; parameters are always float32.

"tf32" lets a card round the factors of products to 10 bits of mantissa and add up in float32, several times faster than
"float32", which on a card is float32 throughout. On a CPU both are the same.
"""


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """A context in which matrix products and convolutions run in `precision`.

    bfloat16 has the range of float32 with 8 bits of mantissa, so nothing has to be rescaled as it has in float16.

    Args:
        device: where the tensors are.
        precision: "float32" or "tf32", where the context does nothing, or "bfloat16".

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if device.type == "meta":  # shapes without numbers have no precision
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def products(device: torch.device, precision: str) -> Iterator[None]:
    """Around forward and backward passes: whether a card may round the factors of float32 products (TF32).

    PyTorch's own choice is that convolutions may and matrix products may not.

    Args:
        device: where the tensors are; nothing is changed unless it is a card.
        precision: a key of `PRECISIONS`; only "tf32" lets it.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            benchmark=torch.backends.cudnn.benchmark,
            deterministic=torch.backends.cudnn.deterministic,
            allow_tf32=precision == "tf32",
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device itself, or, for "auto", a GPU where there is one and else the CPU.

    Raises:
        ValueError: if the device is unknown, or is a GPU that PyTorch does not see.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {str(device)!r}")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        seen = f"{count or 'no'} GPU{'s' if count > 1 else ''}"
        raise ValueError(
            f"device {str(device)!r} was asked for, but PyTorch sees {seen} here; use cpu or auto"
        )
    return found


def channels_last(net: nn.Module) -> nn.Module:
    """Lay the kernels of convolutions out in memory with the channels innermost, in place; values stay as they are.

    Convolutions then hand on feature maps in the same layout, which is the one that GPUs multiply in bfloat16 and
    that the CPU library would otherwise convert to and from. Stacked kernels (five dimensions, of an `Ensemble`) and
    other parameters stay as they are.

    Returns:
        The network itself.
    """
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return net


def constant(values: Values, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Numbers that the host knows as a tensor on a device, copied there once; not to be changed in place.

    A copy in every step would make the host wait for a GPU each time, and no CUDA graph may hold one.

    Args:
        values: a number or truth value, or tuples of them, nested as the tensor is.
        device: where the tensor is.
        dtype: of the tensor.
    """
    if (
        detect_fake_mode() is not None
    ):  # operations are counted on tensors without numbers, which nobody else may get
        return torch.tensor(values, device=device, dtype=dtype)
    return _kept(values, device, dtype)


@lru_cache(maxsize=1024)
def _kept(values: Values, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # else a later step could not differentiate what it is multiplied with
        return torch.tensor(values, device=device, dtype=dtype)


@contextmanager
def threads_for(*nets: nn.Module) -> Iterator[None]:
    """Train small networks on one CPU thread, and treat denormal numbers as zero meanwhile.

    Handing a product of small matrices to a second thread costs more than it saves (and a great deal more where
    the machine is busy), and a saturated network's denormal numbers slow matrix products a hundredfold.
    """
    threads = torch.get_num_threads()
    shapes = [p.shape for net in nets for p in net.parameters()]
    # Four dimensions and more are convolutions, which share out well; three are stacked matrices.
    small = all(len(shape) < 4 and shape[-2:].numel() <= 256 * 256 for shape in shapes)
    if small:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
