"""JupyterLab shows what a notebook's cells hold: the picture whole, whether or not the reader
trusts the notebook.

Looked at in a real JupyterLab and a real browser.  It is a large application, so no extra of the
project installs it.  A picture is left in the folder that $SGLC_PICTURES names.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.viz.browser import Browser, browser, find
from tests.viz.programs import HOSTILE, essays, hostile, shared

LAB = shutil.which("jupyter-lab")
SECONDS = 60.0
SHOWN = ".jp-OutputArea-output"
PROBE = "<p>probe</p><script>document.body.dataset.trusted = 'yes'</script>"
"""Its script runs in a trusted notebook only."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find() is None,
                       reason="no Chromium is installed (apt-get install chromium)"),
    pytest.mark.skipif(LAB is None, reason="no jupyter-lab is on the PATH: it is too large for the "
                                           "development extra (pip install jupyterlab)")]


@pytest.fixture(scope="module")
def bundles() -> list[dict[str, str]]:
    """What the cells of the notebook show."""
    compiled = [shared, essays.compile(essay="x"), hostile.compile(text=HOSTILE)]
    # A notebook is UTF-8, which has no lone surrogates.
    return [{kind: text.encode("utf-8", "replace").decode()
             for kind, text in c._repr_mimebundle_().items()} for c in compiled]


def notebook(bundles: list[dict[str, str]]) -> dict[str, Any]:
    """A notebook that was run, as nbformat 4 has it."""
    cells = [{"cell_type": "code", "id": f"cell{i}", "metadata": {}, "source": "program",
              "execution_count": i, "outputs": [
                  {"output_type": "execute_result", "execution_count": i, "metadata": {},
                   "data": bundle}]} for i, bundle in enumerate(bundles, 1)]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


@contextmanager
def lab(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """JupyterLab on `folder`/notebooks with settings of its own: its address, and the environment
    that it runs in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **{
        f"{name}_DIR": str(folder / name.lower()) for name in (
            "JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS",
            "JUPYTERLAB_WORKSPACES", "IPYTHON")}}
    assert LAB is not None
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [LAB, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
             "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--LabApp.news_url=",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
             f"--ServerApp.root_dir={folder / 'notebooks'}"],
            env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or answers(address + "/api"),
                  "JupyterLab does not answer")
            assert process.poll() is None, (folder / "lab.log").read_text()[-2000:]
            yield address, environment
        finally:
            process.terminate()
            process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def until(true: Callable[[], Any], otherwise: str) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


def look(chrome: Browser, address: str, name: str, outputs: int) -> list[dict[str, Any]]:
    """What the page has in each output area of a notebook."""
    chrome.send("Emulation.setDeviceMetricsOverride", width=1400, height=4000,
                deviceScaleFactor=1, mobile=False)  # cells out of sight are not drawn
    chrome.send("Page.navigate", url=f"{address}/lab/tree/{name}?reset")
    until(lambda: chrome.count(SHOWN) == outputs, "the outputs do not appear")
    until(lambda: chrome.js(f"[...document.querySelectorAll('{SHOWN} img')]"
                            ".every(i => i.complete)"), "the images do not load")
    if folder := os.environ.get("SGLC_PICTURES"):
        chrome.picture(Path(folder) / f"jupyterlab-{name}.png")
    return chrome.js(
        f"[...document.querySelectorAll('{SHOWN}')].map(e => ({{kind: e.dataset.mimeType, "
        "text: e.textContent, details: e.querySelectorAll('details').length, "
        "scripts: e.querySelectorAll('script').length, "
        "images: [...e.querySelectorAll('img')].map(i => "
        "({src: i.src, wide: i.naturalWidth, shown: i.getBoundingClientRect().width}))}))")


def test_the_picture_is_shown_trusted_or_not(tmp_path: Path, bundles: list[dict[str, str]]) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("trusted", "untrusted"):
        made = notebook([*bundles, {"text/html": PROBE}])  # trust goes by contents
        made["metadata"]["title"] = name
        (folder / f"{name}.ipynb").write_text(json.dumps(made), encoding="utf-8")
    with lab(tmp_path) as (address, environment), browser() as chrome:
        assert LAB is not None
        subprocess.run([str(Path(LAB).parent / "jupyter-trust"), str(folder / "trusted.ipynb")],
                       env=environment, check=True, capture_output=True)
        for name in ("trusted", "untrusted"):
            found = look(chrome, address, f"{name}.ipynb", len(bundles) + 1)
            assert (chrome.js("document.body.dataset.trusted") == "yes") is (name == "trusted")
            for cell, bundle in zip(found[:-1], bundles, strict=True):
                page = bundle["text/html"]
                assert cell["kind"] == "text/html"
                assert cell["scripts"] == 0
                assert cell["details"] == page.count("<details>") > 0
                (image,) = cell["images"]
                assert image["src"] in page and image["wide"] > 700
                assert image["shown"] == image["wide"]  # its own size, in an area that scrolls
            assert "program @shared" in found[0]["text"]
            assert "owned" not in chrome.js("document.title") and not chrome.dialogs
