"""`sgl.image` in programs: eager and compiled alike, one and several images, every way to give
one; shared prefixes are computed once; what is wrong is said by name and soon."""

from __future__ import annotations

import contextlib
import runpy
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("transformers")

import sglc as sgl
from sglc.errors import ImageError, LanguageError, SglcError
from sglc.tokens.images import FIRST_ID
from tests.runtime.vision_models import backend_of, draw, encoded, save_llava

NINE = 9  # positions of an image here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "llava"
    save_llava(path)
    return path


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with backend_of(folder) as made:
        yield made
    torch.set_num_threads(threads)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for i, kind in enumerate(("png", "jpg", "webp")):
        draw(40 + 7 * i, 30, seed=i).save(tmp_path / f"{i}.{kind}")
    return [str(p) for p in sorted(tmp_path.iterdir())]


def gen(name: str, n: int = 6) -> Any:
    return sgl.gen(name, max_tokens=n, temperature=0, ignore_eos=True)


@sgl.program
def image_qa(s, image_file, question):
    s += sgl.user(sgl.image(image_file) + question)
    s += sgl.assistant(gen("answer"))


@sgl.program
def compare(s, images, question):
    s += "These: "
    for image in images:
        s += sgl.image(image) + ", "
    s += question + gen("answer")


@sgl.program
def describe_and_judge(s, image, styles):
    s += sgl.image(image) + "In a word: " + sgl.select("kind", ["cat", "dog"])
    forks = s.fork(2)
    for fork, style in zip(forks, styles):  # noqa: B905 - as programs are written
        fork += "As a " + style + ":" + gen("text")
    forks.join()
    s += "So " + sgl.image(image) + gen("last", 3)


def both(program: Any, backend: Any, **arguments: Any) -> Any:
    """The state of an eager run, checked against a compiled one's."""
    states = [program.run(**arguments, backend=backend, mode=mode)
              for mode in ("eager", "compiled")]
    eager, compiled = states
    assert eager.text() == compiled.text()
    assert eager.token_ids() == compiled.token_ids()
    assert eager.messages() == compiled.messages()
    for name in eager.variable_names():
        assert eager[name] == compiled[name]
    return eager


def test_image_qa_is_the_same_in_both_modes(backend, files) -> None:
    state = both(image_qa, backend, image_file=files[0], question="What is this?")
    assert state.text().startswith("U:<image>\nWhat is this?\nA:")
    assert state.messages()[0] == {"role": "user", "content": "<image>\nWhat is this?"}
    assert sum(i >= FIRST_ID for i in state.token_ids()) == NINE
    assert len(state["answer"]) > 0


def test_the_example_runs(folder, files, backend, capsys, monkeypatch) -> None:
    path = Path(__file__).parents[2] / "examples" / "image_qa.py"
    monkeypatch.setattr("sys.argv", ["image_qa.py"])
    example = runpy.run_path(str(path), run_name="__main__")
    assert "MODEL IMAGE" in capsys.readouterr().out
    program = example["image_qa"]
    assert program.compile().graph_breaks == 0
    monkeypatch.setattr(sgl, "Engine", lambda model: contextlib.nullcontext(backend))
    example["main"](str(folder), files[0])
    assert capsys.readouterr().out.strip()


def test_several_images_in_a_prompt(backend, files) -> None:
    state = both(compare, backend, images=files, question="which?")
    ids = [i for i in state.token_ids() if i >= FIRST_ID]
    assert len(ids) == 3 * NINE == len(set(ids))
    twice = both(compare, backend, images=[files[0]] * 2, question="which?")
    ids = [i for i in twice.token_ids() if i >= FIRST_ID]
    assert ids[:NINE] == ids[NINE:]


def test_forks_selects_and_later_images(backend, files) -> None:
    state = both(describe_and_judge, backend, image=files[1], styles=["poet", "judge"])
    assert state["kind"] in ("cat", "dog")
    assert len(state["text"]) == 2


def test_paths_bytes_pictures_and_urls_are_the_same(backend, files) -> None:
    import base64

    from PIL import Image

    data = Path(files[0]).read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    picture = Image.open(files[0])
    ids = {tuple(both(image_qa, backend, image_file=source, question="?").token_ids())
           for source in (files[0], Path(files[0]), data, url, picture)}
    assert len(ids) == 1


def test_images_from_outside_the_program(backend, files, monkeypatch) -> None:
    picture, data = draw(30, 30, 9), encoded(draw(31, 30, 8))

    @sgl.program
    def both_kinds(s):
        s += sgl.image(picture) + "and" + sgl.image(data) + gen("x")

    @sgl.program
    def constant(s):
        s += sgl.image("0.png") + gen("x")

    both(both_kinds, backend)
    monkeypatch.chdir(Path(files[0]).parent)
    first = both(constant, backend).token_ids()
    draw(22, 41, seed=77).save("0.png")  # it is read in each run
    assert both(constant, backend).token_ids() != first


def test_an_image_that_a_host_call_makes(backend) -> None:
    def fetch(name):
        return encoded(draw(20, 20, len(name)))

    @sgl.program
    def fetched(s, name):
        s += "It: " + sgl.image(fetch(name)) + gen("x")

    both(fetched, backend, name="abc")


def test_a_shared_image_prefix_is_computed_once(folder, files) -> None:
    rows = [{"image_file": files[0], "question": q} for q in ("how?", "why?", "who?", "when?")]
    with backend_of(folder) as backend:
        states = image_qa.run_batch(rows, backend=backend)
        stats = backend.stats()
        assert stats.images_encoded == 1
        shared = len("U:") + NINE + len("\n")
        own = sum(len(q["question"] + "\nA:") for q in rows)
        assert stats.prefill_tokens <= shared + own
        assert len({s.text() for s in states}) == 4
        backend.flush_cache()
        with backend.record() as recording:
            image_qa.run_batch([{"image_file": files[1], "question": q["question"]}
                                for q in rows], backend=backend)
        bound = recording.lower_bound()
        assert backend.stats().prefill_tokens - stats.prefill_tokens == bound.prefill
        assert bound.given - bound.prefill >= 3 * NINE
        assert backend.stats().images_encoded == 2


def test_predicted_costs_count_images(backend, files) -> None:
    rows = [{"image_file": f, "question": "what?"} for f in (files[0], files[0], files[1])]
    cost = image_qa.compile(**rows[0], backend=backend).cost(rows)
    backend.flush_cache()
    before = backend.stats().prefill_tokens
    image_qa.run_batch(rows, backend=backend)
    assert cost.prefill.value == backend.stats().prefill_tokens - before


def test_log_probabilities_and_penalties_beside_images(backend, files) -> None:
    @sgl.program
    def told(s, image):
        s += "a" + sgl.image(image) + "bc" + sgl.gen(
            "x", max_tokens=3, temperature=0, return_logprob=True, logprob_start_len=0,
            return_text_in_logprobs=True, repetition_penalty=1.2)

    state = both(told, backend, image=files[0])
    entries = state.get_meta_info("x")["input_token_logprobs"]
    told_of = [lp is not None for lp, _, _ in entries]
    assert told_of == [False] * (len("a") + NINE) + [True] * len("\nbc")
    assert all(text is None for _, i, text in entries if i >= FIRST_ID)


def test_python_source_of_a_program_with_images(backend, files) -> None:
    from sglc.ir.to_python import to_python

    source = to_python(image_qa.compile(image_file=files[0], question="?",
                                        backend=backend).stages["traced"])
    assert "sgl.image(image_file)" in source


# -- what is wrong ---------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG header that says 50,000 x 50,000."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2,
                                                              0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


BAD = {
    "missing": (lambda d: str(d / "none.png"), "none.png"),
    "folder": (lambda d: str(d), "no file"),
    "empty": (lambda d: _file(d, "empty.png", b""), "empty.png"),
    "text": (lambda d: _file(d, "notes.txt", b"not an image at all"), "notes.txt"),
    "svg": (lambda d: _file(d, "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "a.svg"),
    "truncated png": (lambda d: _file(d, "cut.png", encoded(draw(90, 80))[:700]), "cut.png"),
    "truncated jpeg": (lambda d: _file(d, "cut.jpg", encoded(draw(90, 80), "JPEG")[:600]),
                       "cut.jpg"),
    "flipped": (lambda d: _file(d, "bad.png", _flipped(encoded(draw(90, 80)))), "bad.png"),
    "bomb": (lambda d: _file(d, "bomb.png", bomb()), "2500000000 pixels"),
    "bomb bytes": (lambda d: bomb(), "2500000000 pixels"),
    "url": (lambda d: "https://example.com/a.png", "not fetched"),
    "data": (lambda d: "data:image/png;base64,@@@@", "base64"),
    "data without": (lambda d: "data:image/png,abc", "base64"),
    "null byte": (lambda d: "a\0b.png", "a\0b.png"),
    "long name": (lambda d: "x" * 100_000, "100000 characters"),
    "object": (lambda d: object(), "object"),
}


def _file(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def _flipped(data: bytes) -> bytes:
    return data[:60] + bytes(b ^ 0x5A for b in data[60:90]) + data[90:]


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_named_at_once(backend, tmp_path, kind) -> None:
    make, named = BAD[kind]
    source = make(tmp_path)
    for mode in ("eager", "compiled"):
        started = time.monotonic()
        with pytest.raises(ImageError, match="SGLC510") as caught:
            image_qa.run(image_file=source, question="?", backend=backend, mode=mode)["answer"]
        assert named in str(caught.value).replace(",", "")
        assert time.monotonic() - started < 2
    assert backend.core.wait_idle(10)
    backend.core.check()


def test_one_bad_row_leaves_the_others(backend, files, tmp_path) -> None:
    rows = [{"image_file": f, "question": "?"} for f in (files[0], str(tmp_path / "no"), files[1])]
    states = image_qa.run_batch(rows, backend=backend)
    assert states[0]["answer"] and states[2]["answer"]
    assert isinstance(states[1].error(), ImageError)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_a_model_without_vision_refuses_images(files, mode) -> None:
    with sgl.HashModel() as model, pytest.raises(LanguageError, match="without vision"):
        image_qa.run(image_file=files[0], question="?", backend=model, mode=mode)["answer"]


@pytest.mark.parametrize("value", [None, 3, sgl.gen("x")])
def test_what_can_be_no_image_is_refused_where_it_is_written(value) -> None:
    with pytest.raises(LanguageError, match="SGLC002"):
        sgl.image(value)


def test_ids_of_images_cannot_be_made_up(backend) -> None:
    with pytest.raises(SglcError, match="vocabulary"):
        backend.generate(input_ids=[65, FIRST_ID | 5])
