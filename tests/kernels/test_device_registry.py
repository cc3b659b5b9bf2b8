"""Which kernels a GPU gets."""

from __future__ import annotations

import inspect

import pytest

from sglc.errors import ModelError
from sglc.kernels.registry import DEVICE_IMPLEMENTATIONS, load_function, resolve_device


def test_resolve_device() -> None:
    pytest.importorskip("triton")
    reference = resolve_device("torch")
    assert {b for _, b in reference.backends} == {"torch"}
    assert {op for op, _ in reference.backends} == set(DEVICE_IMPLEMENTATIONS)
    assert resolve_device("auto").backends == resolve_device("triton").backends
    assert {b for _, b in resolve_device("auto").backends} == {"triton"}
    with pytest.raises(ModelError, match="SGLC504"):
        resolve_device("quick")


@pytest.mark.parametrize("operation", sorted(DEVICE_IMPLEMENTATIONS))
def test_one_interface_an_operation(operation: str) -> None:
    pytest.importorskip("triton")
    forms = [load_function(spec) for spec in DEVICE_IMPLEMENTATIONS[operation].values()]
    names = {tuple(inspect.signature(form).parameters) for form in forms}
    assert len(names) == 1
