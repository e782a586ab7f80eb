"""What training is fast in on this machine; loads torch, and not fairseq, which takes seconds."""

import torch

PRECISIONS = ("float32", "bfloat16")


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16, so that they are fast."""
    # torch tells of AVX-512's and AMX's by functions whose presence depends on its release
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def preferred_precision(on_cpu: bool = False) -> str:
    """What is fast on this machine, or on its CPU, for recipes: one of `PRECISIONS`."""
    if torch.cuda.is_available() and not on_cpu:
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if has_it else "float32"
    return "bfloat16" if cpu_has_bfloat16() else "float32"
