"""Memory that masked rows upload from, used in turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sglc.runtime.cuda.masked_rows import MaskedRows


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_upload_is_all_there_is(device: str) -> None:
    rng = np.random.default_rng(0)
    for rows in (1, 3, 64):
        made = MaskedRows(rows, torch.device(device))
        found, wanted = [], []
        for turn in range(11):
            noise = rng.integers(-1 << 62, 1 << 62, (3, rows)) if turn % 3 else None
            places = tuple(rng.integers(-1, 1 << 31, rows).tolist() for _ in range(3))
            made.upload(noise, places)  # type: ignore[arg-type]
            draws = made.draws
            found.append([t.clone() for t in (
                draws.key, draws.index, draws.temperature.view(torch.int64), made.table,
                made.state, made.after)])
            numbers = np.zeros((3, rows), np.int64) if noise is None else noise
            wanted.append([*numbers.tolist(), *places])
            assert not draws.filtered and draws.top_k.tolist() == [0] * rows
        for got, want in zip(found, wanted, strict=True):
            assert [t.tolist() for t in got] == want
