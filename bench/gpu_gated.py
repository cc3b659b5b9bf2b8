"""Gate and up in one kernel on Hopper, beside cuBLAS and the gate after it, in the shape of
Llama 3.1 8B.

    python -m bench.gpu_gated [--rows 128 256 512 1024 8192] [--all]

Times are device time: medians over replays of graphs of 20 ms and more, so that the GPU is at its
power limit as in a long run; and, of what is chosen, of 0.3 ms.  `--all`: every form of a tile.
"""

from __future__ import annotations

import argparse

import torch

from bench.gpu_timing import microseconds
from sglc.kernels.gated_gemm_cuda import GatedGemmConfig, gated_gemm, gated_gemm_config
from sglc.kernels.silu_mul_triton import silu_mul_triton

MIDDLE, HIDDEN = 14336, 4096
FORMS = [GatedGemmConfig(128, columns, across) for columns in (112, 128, 224, 256)
         for across in (1, 2)]
FORMS += [GatedGemmConfig(256, columns, 1, along) for columns in (112, 128) for along in (1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 8192])
    parser.add_argument("--all", action="store_true", help="every form of a tile")
    args = parser.parse_args()
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    weights = [torch.randn(2 * MIDDLE, HIDDEN, dtype=torch.bfloat16, device="cuda") / HIDDEN**0.5
               for _ in range(2)]  # each larger than the cache
    for rows in args.rows:
        x = torch.randn(rows, HIDDEN, dtype=torch.bfloat16, device="cuda")
        chosen = gated_gemm_config(rows, MIDDLE, processors)

        def blas(i: int, x: torch.Tensor = x) -> object:
            return silu_mul_triton(x @ weights[i].t())

        before = microseconds(blas, 2, least=20_000.0)
        for config in FORMS if args.all else [chosen]:
            def own(i: int, x: torch.Tensor = x, config: GatedGemmConfig = config) -> object:
                return gated_gemm(x, weights[i], False, config)

            took = microseconds(own, 2, least=20_000.0)
            print(f"{rows} rows, {tuple(config)}{' (chosen)' * (config == chosen)}: {took:.1f} us, "
                  f"{4 * rows * MIDDLE * HIDDEN / took / 1e6:.0f} TFLOP/s; "
                  f"cuBLAS {before:.1f} ({before / took:.3f}x)", flush=True)
        took = microseconds(lambda i, x=x: gated_gemm(x, weights[i]), 2)
        print(f"    in a burst: {took:.1f} us, cuBLAS {microseconds(blas, 2):.1f}", flush=True)


if __name__ == "__main__":
    main()
