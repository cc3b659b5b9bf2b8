"""Programs with images through `RuntimeEndpoint` say what they say in this process."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL")
pytest.importorskip("transformers")

from PIL import Image

import sglc as sgl
from sglc.backends.sent_images import image_arguments
from sglc.errors import ApiError, CapabilityError, ImageError
from tests.runtime.vision_models import draw
from tests.serve.servers import Running
from tests.serve.vision_server import PICTURE, data_url, save, seeing, text_of
from tests.test_examples import load

OPTIONS = {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("remote"))


@pytest.fixture(scope="module")
def files(root: Path) -> list[str]:
    out = []
    for i, size in enumerate([(33, 40), (20, 20), (50, 9)]):
        out.append(str(root / f"{i}.png"))
        draw(*size, i).save(out[-1])
    return out


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Running]:
    with seeing(root) as made:
        yield made
        assert made.idle()


@pytest.fixture(scope="module")
def remote(server: Running) -> Iterator[sgl.RuntimeEndpoint]:
    with sgl.RuntimeEndpoint(server.url) as made:
        yield made


@sgl.program
def image_qa(s, image, question):
    s += sgl.user(sgl.image(image) + question)
    s += sgl.assistant(sgl.gen("answer"))


@sgl.program
def compare(s, images, question):
    for image in images:
        s += sgl.image(image) + f"of {len(images)}, "
    forks = s.fork(2)
    for i, fork in enumerate(forks):
        fork += f"{i} {question}" + sgl.image(images[0]) + sgl.gen("x", regex="[a-z]{3}")
    forks.join("concate_and_append")
    s += sgl.select("kind", ["cat", "dog"]) + sgl.gen("last")


@sgl.program
def beside(s, image, question):
    """The file's name is a text too, so the program runs here and sends prompts."""
    s += "In " + image + ": " + sgl.image(image) + question + sgl.gen("a", regex="[a-z]{6}")
    s += sgl.select("kind", ["cat", "dog"]) + sgl.gen("b", max_tokens=3)


@sgl.program
def made_up(s, folder, number):
    s += sgl.image(folder + "/" + number + ".png") + "?" + sgl.gen("a")


def same(program: Any, rows: list[dict[str, Any]], server: Running, remote: Any, path: str,
         **options: Any) -> None:
    """Through HTTP as in this process, by calls of `path` alone."""
    before = _calls(server)
    there = program.run_batch(rows, backend=remote, **{**OPTIONS, **options})
    after = _calls(server)
    assert {p for p in after if after[p] != before.get(p)} == {path}
    for a, b in zip(program.run_batch(rows, backend=server.backend, **{**OPTIONS, **options}),
                    there, strict=True):
        assert a.error() is None and b.error() is None
        assert (a.text(), a.messages()) == (b.text(), b.messages())
        assert {n: a[n] for n in a.variable_names()} == {n: b[n] for n in b.variable_names()}


def _calls(server: Running) -> dict[str, float]:
    return {s.labels["path"]: s.value for m in server.service.metrics.registry.collect()
            for s in m.samples if s.name == "sglc:http_requests_total"
            and s.labels["path"] in ("/generate", "/v1/programs")}


def test_the_readmes_image_qa(server, remote, files) -> None:
    program = load("image_qa").image_qa
    rows = [{"image_file": f, "question": q} for f in files for q in ("What?", "Where?")]
    same(program, rows, server, remote, "/v1/programs")
    state = program.run(**rows[0], backend=remote, stream=True, **OPTIONS)
    assert "".join(state.text_iter()) == program.run(
        **rows[0], backend=server.backend, **OPTIONS).text()


def test_paths_bytes_pictures_and_urls(server, remote, files) -> None:
    data = Path(files[0]).read_bytes()
    turned = Image.open(io.BytesIO(data))
    turned.getexif()[0x0112] = 6  # says that it lies on its side, which a PIL image does not
    flat = Image.open(files[1]).convert("P")
    sources = [files[0], Path(files[0]), data, data_url(data), turned, flat,
               draw(9, 9).convert("CMYK")]
    rows = [{"image": x, "question": "What?"} for x in sources]
    same(image_qa, rows, server, remote, "/v1/programs")
    found = image_qa.run_batch(rows, backend=remote, **OPTIONS)
    assert len({state["answer"] for state in found[:5]}) == 1


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_lists_forks_and_selects(server, remote, files, kind) -> None:
    images: list[Any] = files if kind == "paths" else [Path(f).read_bytes() for f in files]
    rows = [{"images": images, "question": "Which?"}, {"images": images[:1], "question": "What?"}]
    same(compare, rows, server, remote, "/v1/programs")


def test_programs_that_run_here_send_images_with_prompts(server, remote, files) -> None:
    same(beside, [{"image": f, "question": "?"} for f in files], server, remote, "/generate")
    same(made_up, [{"folder": str(Path(files[0]).parent), "number": str(n)} for n in range(3)],
         server, remote, "/generate")
    eager = compare.run(files, "Which?", backend=remote, mode="eager", **OPTIONS)
    assert eager.text() == compare.run(files, "Which?", backend=server.backend, **OPTIONS).text()


def test_an_sglang_server_gets_images_with_prompts(server, files) -> None:
    from tests.serve.test_sglang_frontend import in_front_of

    with in_front_of(server.url, "vicuna_v1.1") as (endpoint, seen):
        rows = [{"image": f, "question": "What?"} for f in files]
        there = image_qa.run_batch(rows, backend=endpoint, **OPTIONS)
        here = image_qa.run_batch(rows, backend=server.backend, **OPTIONS)
        assert [s["answer"] for s in there] == [s["answer"] for s in here]
        assert [s.messages() for s in there] == [s.messages() for s in here]
        assert set(seen) == {"/get_model_info", "/generate"}


@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_openais_api_gets_images_in_messages(server, files, mode) -> None:
    pytest.importorskip("openai")
    given: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8}
    rows = [{"image": f, "question": "What is <image>?"} for f in files]
    with sgl.OpenAI("default", base_url=server.url + "/v1", api_key="none",
                    max_retries=0) as backend:
        there = image_qa.run_batch(rows, backend=backend, mode=mode, **given)
        here = image_qa.run_batch(rows, backend=server.backend, **given)
        assert [s["answer"] for s in there] == [s["answer"] for s in here]
        assert there[0].messages()[0] == {"role": "user", "content": "<image>What is <image>?"}
        streamed = image_qa.run(**rows[0], backend=backend, mode=mode, stream=True, **given)
        assert "".join(streamed.text_iter("answer")) == here[0]["answer"]
        with pytest.raises(ImageError):
            image_qa.run(b"", "What?", backend=backend, mode=mode)["answer"]
    with sgl.OpenAI("default", base_url=server.url + "/v1", api_type="completion") as text, \
            pytest.raises(CapabilityError, match="images"):
        image_qa.run(files[0], "What?", backend=text, mode=mode)["answer"]


def test_a_text_that_looks_like_an_image_is_no_place_for_one(remote, files) -> None:
    state = beside.run(files[0], "is <image> there?", backend=remote, **OPTIONS)
    with pytest.raises(CapabilityError, match="<image>"):
        state["a"]


def test_what_is_wrong_with_an_image_is_its_rows_error(server, remote, files, tmp_path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(PICTURE[:200])
    images: list[Any] = [files[0], str(tmp_path / "none.png"), damaged, "https://example.com/a.png",
                         b"", 5, files[1]]
    rows = [{"image": x, "question": "What?"} for x in images]
    for backend in (server.backend, remote):
        states = image_qa.run_batch(rows, backend=backend, **OPTIONS)
        errors = [s.error() for s in states]
        assert [type(e) for e in errors] == [type(None), *[ImageError] * 5, type(None)]


def test_a_damaged_image_is_read_once_however_often_it_is_named(server) -> None:
    ir = ('program @p(%im: !any) {\n  %p0 = prompt.root\n'
          '  %i: !any = prompt.compute %im, 0 {fn = "getitem"}\n'
          '  %p1 = prompt.image %p0, %i\n'
          '  %p2, %x: !text, %m = prompt.gen %p1 {max_tokens = 2, name = "x", path = [0]}\n'
          '  prompt.return %p2\n}\n')
    junk = text_of(b"\0" * 1_000_000)
    rows = [{"im": [{"$image": 0}] * 2000}] * 4
    tracemalloc.start()
    try:
        status, body, _ = server.post("/v1/programs", {"ir": ir, "rows": rows, "images": [junk]})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert status == 200, body
    assert [r["error"]["code"] for r in body["rows"]] == ["SGLC510"] * 4
    assert most < 100 << 20


def test_many_rows_go_in_parts(root: Path, files: list[str]) -> None:
    rows = [{"image": files[i % 3], "question": f"{i % 4}?"} for i in range(25)]
    with seeing(root, max_sequences=8) as server, sgl.RuntimeEndpoint(server.url) as remote:
        assert remote.most.rows == 8
        sampled = {**OPTIONS, "temperature": 1, "seed": 3}
        same(image_qa, rows, server, remote, "/v1/programs", **sampled)
        assert _calls(server)["/v1/programs"] == 4
        remote.most = replace(remote.most, bytes=1000)  # less than the images take together
        same(image_qa, rows, server, remote, "/v1/programs", **sampled)
        assert server.idle()
    with seeing(root) as server:
        pictures = server.service.pictures
        pictures.limits = replace(pictures.limits, images=2)
        with sgl.RuntimeEndpoint(server.url) as remote:
            same(image_qa, rows[:7], server, remote, "/v1/programs", **sampled)
            assert _calls(server)["/v1/programs"] == 4
            same(image_qa, [rows[0]] * 9, server, remote, "/v1/programs", **sampled)
            assert _calls(server)["/v1/programs"] == 5
            assert server.idle()


@pytest.mark.parametrize(("row", "images", "says"), [
    ({"im": "/etc/passwd"}, [], "is an image"), ({"im": {"$image": 1}}, [PICTURE], "is an image"),
    ({"im": {"$image": -1}}, [PICTURE], "is an image"),
    ({"im": {"$image": True}}, [PICTURE], "is an image"),
    ({"im": [{"$image": 0}, "x"]}, [PICTURE], "is an image"), ({"im": None}, [], "is an image"),
    ({"im": {"$image": 0, "x": 1}}, [PICTURE], "is an image"),
    ({"im": {"$image": 0}}, [PICTURE] * 300, "at most 256"),
    ({"im": {"$image": 0}}, ["no base64"], "base64")])
def test_posted_rows_name_images_only(server, row, images, says) -> None:
    ir = ('program @p(%im: !any) returns ("x") {\n  %p0 = prompt.root\n'
          '  %p1 = prompt.image %p0, %im\n'
          '  %p2, %x: !text, %m = prompt.gen %p1 {max_tokens = 2, name = "x", path = [0]}\n'
          '  prompt.bind %x {name = "x"}\n  prompt.return %p2\n}\n')
    status, body, _ = server.post("/v1/programs", {"ir": ir, "rows": [row], "images": [
        text_of(i) if isinstance(i, bytes) else i for i in images]})
    assert status == 400 and says in body["error"]["message"]


@pytest.mark.parametrize("source", [
    '"/etc/passwd"', '"https://example.com/a.png"', "%t", "%c"])
def test_posted_programs_read_no_files(server, source) -> None:
    ir = ('program @p(%q: !text) {\n  %p0 = prompt.root\n'
          '  %p1, %t: !text, %m = prompt.gen %p0 {max_tokens = 2, name = "x", path = [0]}\n'
          '  %c: !text = prompt.compute %q, "x" {fn = "add"}\n'
          f'  %p2 = prompt.image %p1, {source}\n  prompt.return %p2\n}}\n')
    status, body, _ = server.post("/v1/programs", {"ir": ir, "rows": [{"q": "/etc/passwd"}]})
    assert status == 400 and "images of a posted program" in body["error"]["message"]


def test_which_arguments_are_images() -> None:
    def of(program: Any, **row: Any) -> Any:
        trace = program.compiler().variant(row, set()).trace
        return image_arguments(next(iter(trace.module.programs.values())))

    assert of(image_qa, image="a", question="b") == {"image"}
    assert of(compare, images=["a", "b"], question="b") == {"images"}
    assert of(beside, image="a", question="b") is None
    assert of(made_up, folder="a", number="b") is None


def test_a_server_without_vision(remote, server) -> None:
    from tests.serve.servers import running

    with running() as blind, sgl.RuntimeEndpoint(blind.url) as backend:
        with pytest.raises(ApiError, match="no vision"):
            image_qa.run(PICTURE, "What?", backend=backend)["answer"]
        with pytest.raises(ApiError, match="no vision"):
            image_qa.run(PICTURE, "What?", backend=backend, mode="eager")["answer"]
