"""Opening a model in several processes: what rank 0 does, and what each worker does."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sglc.errors import ModelError
from sglc.runtime.model_runner import load_runner, open_model
from sglc.runtime.parallel.group import GlooGroup, Link
from sglc.runtime.parallel.leading import ParallelRunner
from sglc.runtime.parallel.split import check_split
from sglc.runtime.parallel.team import Team


def open_parallel(path: str | Path, size: int, *, device: str = "cpu", dtype: str = "auto",
                  kernels: str = "auto", quantization: str | None = None
                  ) -> tuple[Any, dict[str, Any]]:
    """A runner on the CPU whose model is spread over `size` processes, this one included.

    Otherwise as `load_runner`.  Raises ModelError (SGLC504) if the model cannot be divided.
    """
    given: dict[str, Any] = {"device": device, "dtype": dtype, "kernels": kernels,
                             "quantization": quantization}
    if size == 1:
        return load_runner(path, **given)
    check_split(open_model(Path(path))[1], size, even=False)  # before processes are started
    link = GlooGroup(0, size)
    team = Team(link, _job(path, size, on_device=False, first=0, given=given))
    try:
        part, about = load_runner(path, group=link, **given)
        team.answers()
        team.connect()
        runner = ParallelRunner(part, team)
        weakref.finalize(runner, team.close, kill=True)  # for who forgets to close it
        return runner, about
    except BaseException:
        team.close(kill=True)
        raise


def open_device_parallel(path: str | Path, size: int, *, device: str = "cuda", **given: Any
                         ) -> tuple[Any, dict[str, Any]]:
    """A `LeadingRunner` of a model that is spread over `size` GPUs from `device` on.

    Otherwise as `load_device_runner`; on the CPU, processes stand in for GPUs.  Raises ModelError
    (SGLC504) if the model cannot be divided evenly, or there are fewer GPUs.
    """
    from sglc.runtime.cuda.load import load_device_runner, model_shape, step_tokens
    from sglc.runtime.cuda.ranks import LeadingRunner

    where = torch.device(device)
    first = _first_gpu(where, size) if where.type == "cuda" else 0
    if size > 2 and given.get("deterministic"):
        raise ModelError("SGLC504", f"deterministic=True is not possible with tp={size}",
                         why="the order in which NCCL adds up three ranks or more depends on how "
                             "many tokens there are", fixes=("use tp=2, or leave it out",))
    if not given.get("max_tokens"):  # here, for all ranks
        said = {name: given[name] for name in ("dtype", "load_format") if name in given}
        given["max_tokens"] = step_tokens(path, where, size, **said)
    if size == 1:
        return load_device_runner(path, device=device, **given)
    check_split(model_shape(path, given.get("load_format", "auto")), size, even=True)
    link = _link(where.type, first, 0, size)
    team = Team(link, _job(path, size, on_device=True, first=first,
                           given={"device": where.type, **given}))
    try:
        runner, about = load_device_runner(
            path, device=_device(where.type, first, 0), group=link,
            runner_type=partial(LeadingRunner, team=team), **given)
        runner.join()  # type: ignore[attr-defined]
        weakref.finalize(runner, team.close, kill=True)
        return runner, about
    except BaseException:
        team.close(kill=True)
        raise


def _first_gpu(device: torch.device, size: int) -> int:
    first = torch.cuda.current_device() if device.index is None else device.index
    there = torch.cuda.device_count()
    if first >= there:
        raise ModelError("SGLC504", f"there is no GPU number {first}",
                         why=f"PyTorch sees {there}, and counts from 0")
    if first + size > there:
        raise ModelError("SGLC504", f"there are no {size} GPUs from number {first} on",
                         why=f"PyTorch sees {there}", fixes=(f"use tp={there - first}",))
    return first


def load_part(job: dict[str, Any]) -> tuple[Any, Link]:
    """A worker's part of the model, and its group, which is still to be connected."""
    rank, size, given = job["rank"], job["size"], job["given"]
    kind = given.pop("device")
    if not job["on_device"]:
        link: Link = GlooGroup(rank, size)
        return load_runner(job["path"], group=link, **given)[0], link
    from sglc.runtime.cuda.load import load_device_runner
    from sglc.runtime.cuda.ranks import FollowingRunner

    device = _device(kind, job["first"], rank)
    if kind == "cuda":
        torch.cuda.set_device(device)
    link = _link(kind, job["first"], rank, size)
    return load_device_runner(job["path"], device=device, group=link,
                              runner_type=FollowingRunner, **given)[0], link


def _job(path: str | Path, size: int, **more: Any) -> dict[str, Any]:
    """What a worker needs to know (see `load_part`).  Threads are as many as here: sums must not
    be cut in other places."""
    return {"path": str(Path(path).resolve()), "size": size,
            "threads": torch.get_num_threads(), **more}


def _device(kind: str, first: int, rank: int) -> str:
    return f"cuda:{first + rank}" if kind == "cuda" else kind


def _link(kind: str, first: int, rank: int, size: int) -> Link:
    if kind != "cuda":
        return GlooGroup(rank, size)
    from sglc.runtime.cuda.nccl import NcclGroup

    return NcclGroup(rank, size, torch.device(_device(kind, first, rank)))
