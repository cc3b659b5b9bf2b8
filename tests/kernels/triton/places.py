"""Where kernels run: on a GPU at the sizes of real models, or interpreted at tiny ones.

The interpreter multiplies float32 only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Place:
    """The device, the types to test, and whether sizes are to be tiny."""

    device: str
    tiny: bool
    dtypes: tuple[torch.dtype, ...]
    generator: torch.Generator

    def randn(self, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(size, generator=self.generator).to(dtype).to(self.device)

    def integers(self, low: int, high: int, *size: int,
                 dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.randint(low, high, size, generator=self.generator).to(dtype).to(self.device)

    def pick(self, tiny: int, real: int) -> int:
        return tiny if self.tiny else real


def close(found: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype,
          roundings: int = 1) -> None:
    """Within so many roundings to `dtype` of a float32 reference."""
    scale = exact.float().abs().max().clamp(min=1e-6)
    assert found.shape == exact.shape
    error = (found.float() - exact.float()).abs().max() / scale
    limit = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert bool(error <= limit * roundings), f"error {float(error):.2e} of the largest in {dtype}"
