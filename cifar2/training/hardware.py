"""The device, the number format of matrix products, and the settings of convolutions."""

import functools
import os
import sys

import torch

from cifar2.errors import UserError


def device(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``mps``; ``auto`` is a GPU where there is one, else the CPU.

    On a GPU, kernels are deterministic and TF32, which rounds the factors of a product to 10 bits, is off
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).

    Raises:
        UserError: there is no such device here.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_here in present.items() if is_here)
    if not present[name]:
        raise UserError(f"params.yaml: train.device is {name}, which PyTorch does not find here; cpu runs everywhere")
    if name == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def fix_threads(threads: int) -> None:
    """Fix the number of threads, on which the results of convolutions depend."""
    torch.set_num_threads(threads)


def fix_instructions(instructions: str) -> None:
    """Choose the instruction set, avx2 or native, before the first product of matrices and the first convolution.

    MKL computes the products, with the AVX2 kernels unless told otherwise (cifar2/__init__.py); oneDNN computes the
    convolutions, for which an instruction set chosen by the user stays.
    """
    if instructions == "native":
        os.environ.pop("MKL_CBWR", None)
    else:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@functools.cache
def product_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of matrix products on ``device`` for ``precision``, float32 or bfloat16.

    Emulated bfloat16 is slower than float32, so float32 is used instead, with one warning.
    """
    if precision == "bfloat16" and not _multiplies_bfloat16(device):
        print(f"warning: this {device.type} has no bfloat16 products; training in float32", file=sys.stderr)
        return torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
