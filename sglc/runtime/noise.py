"""Gumbel-max sampling with noise that belongs to (key, index, token) and to nothing else.

The noise of token `v` of a row with key (low, high) at `index` is `-log(-log(u))`, `u = (w + 0.5)
2^-32`, where `w` is word `v % 4` of Philox at counter (index, v // 4, 0, 0).  It lies in
(-3.14, 22.88), so tokens further than that below the best cannot win: where few can, noise is
made for those alone, with the same outcome.
"""

from __future__ import annotations

import numpy as np
import torch

from sglc.runtime.philox import philox4x32

_SPAN = 26.1  # more than the noise's range
_BLOCK = 1 << 17  # noise made at once on a CPU: what its cache holds


def gumbel_max(scores: torch.Tensor, counters: np.ndarray,
               ids: np.ndarray | None = None) -> list[int]:
    """One sample a row of `softmax(scores)`: the column of the largest noisy score, the first of
    equals; -1 where all scores are -inf, -2 where one is NaN.

    scores: float64, (rows, V).  counters: uint64, (rows, 3): index, low and high word of the key.
    ids: the tokens that the columns are of; None for 0, 1, ...
    """
    if ids is not None:
        return _on_cpu(scores.cpu().numpy(), counters, ids)
    if scores.device.type != "cpu":
        return _on_device(scores, torch.from_numpy(counters.view(np.int64)).to(scores.device))
    block = max(1, _BLOCK // scores.shape[1])
    found: list[int] = []
    for at in range(0, len(scores), block):
        found += _on_cpu(scores[at:at + block].numpy(), counters[at:at + block])
    return found


def _on_cpu(scores: np.ndarray, counters: np.ndarray,
            ids: np.ndarray | None = None) -> list[int]:
    rows, vocab = scores.shape
    index, low, high = counters.T
    zero = np.zeros(1, dtype=np.uint64)
    top = scores.max(axis=1)
    possible = scores >= (top - _SPAN)[:, None]
    flat = np.flatnonzero(possible)
    if ids is None and 4 * len(flat) > rows * vocab:
        quads = np.arange((vocab + 3) // 4, dtype=np.uint64)[None]
        words = np.empty((rows, quads.shape[1], 4))
        made = philox4x32((index[:, None], quads, zero, zero), (low[:, None], high[:, None]))
        for i, word in enumerate(made):
            words[:, :, i] = word
        noisy = words.reshape(rows, -1)[:, :vocab]
        _gumbel(noisy)
        noisy += scores
    else:
        r, v = np.divmod(flat, vocab)
        v = v if ids is None else ids[v]
        made = philox4x32((index[r], (v >> 2).astype(np.uint64), zero, zero), (low[r], high[r]))
        noise = np.choose(v & 3, made).astype(np.float64)
        _gumbel(noise)
        noisy = np.full((rows, vocab), -np.inf)
        noisy.reshape(-1)[flat] = noise + scores.reshape(-1)[flat]
    found: list[int] = noisy.argmax(axis=1).tolist()
    if not np.isfinite(top).all():
        for row, value in enumerate(top.tolist()):
            if value != value:
                found[row] = -2
            elif value == -np.inf:
                found[row] = -1
    return found


def _gumbel(words: np.ndarray) -> None:
    """Turn words (as floats) into noise, in place."""
    words += 0.5
    words *= 2.0**-32
    for _ in range(2):
        np.log(words, out=words)
        np.negative(words, out=words)


def _on_device(scores: torch.Tensor, counters: torch.Tensor) -> list[int]:
    """The same on any torch device, noise for every token."""
    rows, vocab = scores.shape
    index, low, high = counters.T[:, :, None]
    quads = torch.arange((vocab + 3) // 4, device=scores.device)[None]
    zero = torch.zeros(1, dtype=torch.int64, device=scores.device)
    words = torch.stack(philox4x32((index, quads, zero, zero), (low, high)), dim=-1)
    u = (words.view(rows, -1)[:, :vocab].double() + 0.5) * 2.0**-32
    values, ids = (scores - torch.log(-torch.log(u))).max(dim=1)
    ids = ids.masked_fill(values == -float("inf"), -1).masked_fill(values.isnan(), -2)
    found: list[int] = ids.tolist()
    return found
