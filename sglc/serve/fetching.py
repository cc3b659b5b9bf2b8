"""Fetching images for clients (`--fetch-images`), from public addresses only.

The address that a socket is about to be connected to is what is checked, so it does not matter how
a URL spells it, or whether its name means another address each time.  Redirects are not followed,
proxies and cookies not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from sglc.serve.problems import Problem
from sglc.serve.waiting import within

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_AT_ONCE = 8
_URL = re.compile(r"https?://[a-z0-9.\-\[\]:]+(?:[/?][!-~]*)?", re.IGNORECASE)
# Of IPv6, what stands for an IPv4 address.
_EMBEDDING = tuple(ipaddress.IPv6Network(n) for n in (
    "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet, and stands for no other."""
    return address.is_global and not (address.is_multicast or address.is_reserved) and not (
        address.version == 6 and (address.is_site_local or any(
            address in net for net in _EMBEDDING)))


class Fetcher:
    """Fetches files by http and https.  For one event loop.

    ports, permitted: what may be connected to.  resolver: of names, the system's by default.
    """

    def __init__(self, most_bytes: int, seconds: float, *, ports: frozenset[int],
                 permitted: Callable[[Address], bool] = is_public,
                 resolver: AbstractResolver | None = None) -> None:
        self.most_bytes = most_bytes
        self.seconds = seconds
        self._permitted = permitted
        self._ports = ports
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False,
                                           force_close=True, socket_factory=self._socket),
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
            headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "sglc"})

    async def fetch(self, url: str) -> bytes:
        """The file at a URL.  Raises Problem 400."""
        self._check(url)
        try:
            async with self._slots:
                return await within(self._read(url), self.seconds)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise _refused(type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _read(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise _refused(f"status {response.status}")
            out = bytearray()
            async for piece in response.content.iter_any():
                out += piece
                if len(out) > self.most_bytes:
                    raise _refused(f"it has more than {self.most_bytes} bytes")
            return bytes(out)

    def _check(self, url: str) -> None:
        """Raises Problem 400 for what is no plain URL with a permitted port."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme.lower()]
        except (ValueError, KeyError):
            raise _refused("it is no plain http or https URL") from None
        if len(url) > 2048 or not _URL.fullmatch(url) or not parts.hostname:
            raise _refused("it is no plain http or https URL")
        if port not in self._ports:
            raise _refused(f"the port {port} is not allowed")

    def _socket(self, info: Any) -> socket.socket:
        """A socket to connect as `info` says.  OSError for an address that is not permitted."""
        family, kind, proto, _, place = info
        try:
            permitted = self._permitted(ipaddress.ip_address(place[0].partition("%")[0]))
        except ValueError:  # a number in another spelling
            permitted = False
        if not permitted:
            raise OSError("the address is not public")
        return socket.socket(family, kind, proto)


def _refused(why: str) -> Problem:
    return Problem(400, f"the image cannot be fetched: {why}", code="invalid_image")
