"""Fetching images: from where, how much, how long."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from sglc.serve.fetching import Fetcher, is_public
from sglc.serve.pictures import PictureLimits, Pictures
from sglc.serve.problems import Problem


@pytest.mark.parametrize("address", [
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1",
    "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fec0::1"])
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def _image(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"picture")


async def _redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/image")


async def _endless(request: web.Request) -> web.StreamResponse:
    out = web.StreamResponse()
    await out.prepare(request)
    while True:
        await out.write(b"x" * 4096)


async def _slow(request: web.Request) -> web.StreamResponse:
    out = web.StreamResponse()
    await out.prepare(request)
    while True:
        await out.write(b"x")
        await asyncio.sleep(0.05)


async def _bomb(request: web.Request) -> web.StreamResponse:
    import gzip

    return web.Response(body=gzip.compress(b"\0" * 200_000), headers={"Content-Encoding": "gzip"})


class _Names(AbstractResolver):
    """Says of every name what it is told to, one address after the other."""

    def __init__(self, *addresses: str) -> None:
        self.left = list(addresses)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        address = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET,
                 "proto": 0, "flags": socket.AI_NUMERICHOST}]

    async def close(self) -> None:
        pass


def fetched(path: str, host: str = "127.0.0.1", permitted: Callable[[Any], bool] = lambda a: True,
            resolver: Any = None, times: int = 1) -> tuple[bytes | str, int]:
    """What comes of a path of a server here, or the error; and how many requests it got."""
    asked = 0

    async def main() -> bytes | str:
        nonlocal asked

        @web.middleware
        async def count(request: web.Request, handler: Any) -> Any:
            nonlocal asked
            asked += 1
            return await handler(request)

        app = web.Application(middlewares=[count])
        for name, handler in {"image": _image, "redirect": _redirect, "endless": _endless,
                              "slow": _slow, "bomb": _bomb}.items():
            app.router.add_get("/" + name, handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        fetcher = Fetcher(100_000, 0.5, ports=frozenset((port,)), permitted=permitted,
                          resolver=resolver)
        try:
            found: bytes | str = b""
            for _ in range(times):
                found = await fetcher.fetch(f"http://{host}:{port}/{path}")
            return found
        except Problem as problem:
            assert problem.status == 400 and problem.code == "invalid_image"
            return problem.message
        finally:
            await fetcher.close()
            await runner.cleanup()

    return asyncio.run(main()), asked


def test_a_file_is_fetched() -> None:
    assert fetched("image", times=3) == (b"picture", 3)
    assert fetched("image", "pictures.example", resolver=_Names("127.0.0.1")) == (b"picture", 1)


@pytest.mark.parametrize(("path", "says", "asked"), [
    ("redirect", "status 302", 1), ("none", "status 404", 1), ("endless", "more than 100000", 1),
    ("slow", "Timeout", 1)])
def test_answers_that_are_not_taken(path: str, says: str, asked: int) -> None:
    began = time.monotonic()
    found, count = fetched(path)
    assert says in str(found) and count == asked
    assert time.monotonic() - began < 5


def test_what_is_compressed_is_not_unpacked() -> None:
    found, _ = fetched("bomb")
    assert isinstance(found, bytes) and len(found) < 1000


@pytest.mark.parametrize("host", [
    "127.0.0.1", "localhost", "2130706433", "127.1", "0177.0.0.1", "0x7f000001", "127.0.0.1.",
    "[::ffff:127.0.0.1]", "0.0.0.0", "0"])
def test_spellings_of_this_machine(host: str) -> None:
    found, asked = fetched("image", host, is_public)
    assert isinstance(found, str) and asked == 0


def test_a_name_that_changes_its_address() -> None:
    """What is asked about and what is connected to is one answer."""
    def not_the_second(address: Any) -> bool:
        return str(address) == "127.0.0.1"

    found, asked = fetched("image", "a.example", not_the_second,
                           _Names("127.0.0.1", "127.0.0.2"), times=2)
    assert isinstance(found, str) and asked == 1


@pytest.mark.parametrize("url", [
    "ftp://127.0.0.1:{}/image", "http://user@127.0.0.1:{}/image", "http://127.0.0.1:{}\\@x/image",
    "http://127.0.0.1:{}/im age", "http://a.example\\@127.0.0.1:{}/", "http://127%2e0.0.1:{}/",
    "http://:{}/", "http://[::1:{}/", "http://127.0.0.1:1/", "http://127.0.0.1:{}#x",
    "http://127.0.0.1:{}/" + "x" * 3000, "http://127.0.0.1:{}/\r\nHost: x"])
def test_urls_that_are_not_plain(url: str) -> None:
    async def main() -> None:
        fetcher = Fetcher(10, 0.5, ports=frozenset((9,)), permitted=lambda a: True)
        try:
            await fetcher.fetch(url.format(9))
        finally:
            await fetcher.close()

    with pytest.raises(Problem, match=r"plain|port") as found:
        asyncio.run(main())
    assert found.value.status == 400


def test_files_that_wait_to_be_decoded_are_held() -> None:
    """They come faster than one thread decodes them."""
    class Tokenizer:
        images = object()

    pictures = Pictures(Tokenizer(), PictureLimits(bytes=100, fetch=True))
    release = threading.Event()
    pictures._decoding.submit(release.wait, 10)

    async def main() -> list[Any]:
        async def come(url: str) -> bytes:
            return b"x" * 60

        pictures._fetched = come  # type: ignore[method-assign]
        with ExitStack() as holds:
            first, second = [asyncio.ensure_future(pictures.place(
                ["http://a.example/"], param="p", deadline=time.monotonic() + 0.3, until=holds))
                for _ in range(2)]
            return await asyncio.gather(first, second, return_exceptions=True)

    try:
        assert [e.status for e in asyncio.run(main())] == [504, 429]
        assert pictures._room.taken == 0
    finally:
        release.set()
        pictures.close()
