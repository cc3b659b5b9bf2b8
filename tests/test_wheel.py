"""The built wheel: complete, and enough, in a fresh environment, to import, compile and look.

Slow: the build backend and the dependencies come from the package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Run = Callable[..., str]

IMPORT = """
import sys, time
start = time.perf_counter()
import sglc
print(time.perf_counter() - start)
print(sglc.__file__)
print([m for m in ("torch", "numpy", "lark", "networkx", "jinja2") if m in sys.modules])
"""
NOTEBOOK = """
import sglc as sgl

@sgl.program
def ask(s, question):
    s += "Q: " + question + sgl.gen("answer", max_tokens=8)

print(sorted(ask._repr_mimebundle_()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet",
                    "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=280)
    built, = folder.glob("sglc-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of a fresh environment that has the wheel and what it requires, no extra."""
    folder = tmp_path_factory.mktemp("fresh")
    place = folder / "env"
    venv.create(place, with_pip=True)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    unset = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    surroundings = {k: v for k, v in os.environ.items() if k not in unset}
    surroundings |= {"SGLC_MODEL_DIR": str(folder / "no model"), "HOME": str(folder)}

    def run(program: str, *words: str) -> str:
        done = subprocess.run([str(programs / program), *words], cwd=folder, capture_output=True,
                              text=True, timeout=280, env=surroundings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("python", "-m", "pip", "install", "--quiet", str(wheel))
    return run


def test_wheel_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(n for n in names if n.endswith(".dist-info/METADATA"))
        about = archive.read(metadata).decode()
        points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    packed = {n for n in names if ".dist-info/" not in n}
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "sglc").rglob("*")
             if p.is_file() and "__pycache__" not in p.parts}
    assert packed == there
    for needed in (r"sglc/py\.typed", r"sglc/explain/pages/SGLC\d+\.md",
                   r"sglc/viz/assets/\w+\.js", r"sglc/viz/assets/\w+\.css"):
        assert any(re.fullmatch(needed, n) for n in packed), needed
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    assert "License-Expression: Apache-2.0" in about
    assert not re.search(r"^Requires-Dist: torch[^;]*$", about, re.M)  # never without an extra
    assert "sglc = sglc.cli:main" in points


def test_import(installed: Run) -> None:
    installed("python", "-c", IMPORT)  # the first writes byte code
    seconds, place, loaded = installed("python", "-c", IMPORT).splitlines()
    assert float(seconds) < 1
    assert "site-packages" in place and loaded == "[]"
    assert "torch" not in installed("python", "-m", "pip", "list")


@pytest.mark.parametrize("name", ["tool_use", "react", "rag", "llava", "quick_start/local_chat"])
def test_compile_an_example(name: str, installed: Run) -> None:
    out = installed("sglc", "compile", str(ROOT / "examples" / f"{name}.py"))
    assert "0 graph breaks" in out and "schedule" in out


def test_look_at_an_example(installed: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    installed("sglc", "viz", str(ROOT / "examples" / "judge.py"), "-o", str(page))
    text = page.read_text()
    assert "<script" in text and "<style" in text and "judge" in text
    assert not re.search(r'(src|href)="https?:', text)
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    assert installed("python", str(script)).strip() == str(
        ["image/svg+xml", "text/html", "text/plain"])


def test_other_commands(installed: Run) -> None:
    assert "compile" in installed("sglc", "--help")
    assert installed("sglc", "explain", "SGLC114").startswith("# SGLC114")
    assert "torch" in installed("sglc", "env")
