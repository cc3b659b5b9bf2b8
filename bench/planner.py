"""What each part of the planner is worth: workloads at full size on the hash model, with one part
left out at a time.

Printed for each: prefill over its lower bound, steps, retractions, the peak of KV in use.

    python -m bench.planner [--workload tree,chat] [--share 0.25 0.5 4] [--without order pins]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import ceil
from typing import Any
from unittest.mock import patch

from sglc.backends.hash_model import HashModel
from sglc.plan import planner
from sglc.progress import Progress
from sglc.runtime import dispatch
from sglc.workloads import WORKLOADS, Workload
from sglc.workloads.base import Rows
from sglc.workloads.measure import Measured, measure

BUDGET = 2048  # new tokens a step


class _InOrder(planner.BatchPlan):
    """Rows as they come."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.order = sorted(self.order)
        self.places = list(range(self.count))


class _NoGroups(planner.BatchPlan):
    def group_of(self, ids: Any) -> None:
        return None

    def groups_of(self, prompts: Any) -> list[Any]:
        return []

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.groups, self.everywhere = [], []


class _NoPins(dispatch.Dispatcher):
    def _place(self, entry: Any, request: Any, call: Any, length: Any) -> None:
        super()._place(entry, request, call, length)
        request.pins = ()


class _RowByRow(dispatch.Dispatcher):
    def _all_fit(self, entries: Any, plan: Any) -> bool:
        return False


class _KeepAll(dispatch.Dispatcher):
    """What nobody reads again is kept until the instance ends."""

    def _place(self, entry: Any, request: Any, call: Any, length: Any) -> None:
        super()._place(entry, request, call, None)


class _NoPromises(dispatch.Dispatcher):
    def __init__(self, target: Any, memory: int) -> None:
        super().__init__(_Unpromised(target), memory)


class _Unpromised:
    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def pin(self, rank: Any, **_: Any) -> Any:
        return self._target.pin(rank)


def _ahead(ahead: float) -> list[Any]:
    """Another window."""
    return [patch.object(dispatch, "AHEAD", ahead)]


def _class(replacement: Any) -> list[Any]:
    return [patch("sglc.runtime.dispatch.Dispatcher", replacement)]


WITHOUT: dict[str, Any] = {
    "nothing": list,
    "order": lambda: [patch.object(dispatch, "BatchPlan", _InOrder)],
    "groups": lambda: [patch.object(dispatch, "BatchPlan", _NoGroups)],
    "pins": lambda: _class(_NoPins),
    "promises": lambda: _class(_NoPromises),
    "release": lambda: _class(_KeepAll),
    "op-major": lambda: _class(_RowByRow),
    "window": lambda: _ahead(1e9),
    "window-1": lambda: _ahead(1),
    "window-2": lambda: _ahead(2),
}


def run(program: Any, rows: Rows, kv: int, without: str, mode: str = "compiled",
        policy: str = "planned", tokenizer: str | None = None) -> Measured:
    patches = WITHOUT[without]()
    for p in patches:
        p.start()
    try:
        with HashModel(tokenizer, kv_tokens=kv, max_batch_tokens=BUDGET, policy=policy) as model:
            return measure(program, rows, model, mode)
    finally:
        for p in patches:
            p.stop()


def case(workload: Workload, size: str, scale: float) -> tuple[Any, Rows]:
    sizes = workload.full if size == "full" else workload.small
    if scale != 1:
        sizes = replace(sizes, rows=max(6, int(sizes.rows * scale)),
                        words=int(sizes.words * scale), tokens=max(1, int(sizes.tokens * scale)),
                        shared=int(sizes.shared * scale), latency=sizes.latency * scale)
    return workload.program(sizes), workload.batch(sizes, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workload", default="tree,debate-shuffled,chat,tips,react")
    parser.add_argument("--size", choices=["small", "full"], default="full")
    parser.add_argument("--scale", type=float, default=1.0, help="of rows and of lengths")
    parser.add_argument("--share", type=float, nargs="*", default=[4.0, 0.5, 0.25])
    parser.add_argument("--without", nargs="*", choices=list(WITHOUT), default=list(WITHOUT))
    parser.add_argument("--tokenizer", default=None, help="bytes if not given")
    args = parser.parse_args()
    head = "workload | share | without | prefill / least | steps | retracted | KV peak / pool | s"
    print(f"| {head} |\n|" + "---|" * 8)
    names = args.workload.split(",")
    bar = Progress(len(names) * len(args.share) * len(args.without), unit="run", leave=False)
    for name in names:
        program, rows = case(WORKLOADS[name], args.size, args.scale)
        full = run(program, rows, 1 << 23, "nothing", tokenizer=args.tokenizer)
        for share in args.share:
            room = max(ceil(share * full.working_set), full.longest + 1)
            for without in args.without:
                m = run(program, rows, room, without, tokenizer=args.tokenizer)
                bar.step()
                bar.say(f"| {name} | {share:g} | {without} | {m.ratio:.3f} | {m.steps} "
                      f"| {m.retractions} | {m.kv_peak}/{m.kv} | {m.seconds:.1f} |")
    bar.close()


if __name__ == "__main__":
    main()
