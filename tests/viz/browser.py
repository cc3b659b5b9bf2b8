"""A headless Chromium for tests, driven over its DevTools protocol.

Only what the tests need: open a file, evaluate, press keys, take pictures; what the console said
and what was requested is noted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 30.0


def find() -> str | None:
    """The path of a Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab.  errors: what the console complained about; requests: what was asked for, apart
    from the page itself."""

    def __init__(self, session: aiohttp.ClientWebSocketResponse,
                 run: Callable[[Awaitable[Any]], Any]) -> None:
        self._socket = session
        self._run = run
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self._page = ""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """A command, and what it gave."""
        return self._run(asyncio.wait_for(self._send(method, parameters), SECONDS))

    async def _send(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        what, given = message.get("method", ""), message.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"])[:1000])
        elif what == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(given["args"])[:1000])
        elif what == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(given["entry"]["text"])
        elif what == "Network.requestWillBeSent":
            url = given["request"]["url"]
            if url.partition("#")[0] != self._page:
                self.requests.append(url[:200])
        elif what == "Page.javascriptDialogOpening":
            self.dialogs.append(given["message"])

    # -- what tests do ------------------------------------------------------------------------
    def open(self, path: Path, *, dark: bool = False, scripts: bool = True, wide: int = 1400,
             high: int = 900) -> None:
        """Show a file, and wait until it is there."""
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.send("Emulation.setDeviceMetricsOverride", width=wide, height=high,
                  deviceScaleFactor=1, mobile=False)
        self._page = path.resolve().as_uri()
        self.send("Page.navigate", url="about:blank")
        self.requests.clear()
        self.errors.clear()
        self.send("Page.navigate", url=self._page)
        end = time.monotonic() + SECONDS
        while self.js("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.02)

    def js(self, expression: str) -> Any:
        """The value of an expression (plain data)."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def count(self, selector: str) -> int:
        """How many elements match."""
        return self.js(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).dispatchEvent("
                "new MouseEvent('click', {bubbles: true, cancelable: true}))")

    def key(self, key: str) -> None:
        """Press and release a key."""
        known = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27,
                 "Enter": 13, "Home": 36, "End": 35, "Tab": 9}
        code = known.get(key, ord(key[0]))
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      code=key, **(text if kind == "keyDown" else {}))

    def drag(self, x: int, y: int, to_x: int, to_y: int) -> None:
        """Press the left button at one place of the window, release it at another."""
        for kind, at, held in (("mousePressed", (x, y), 1), ("mouseMoved", (to_x, to_y), 1),
                               ("mouseReleased", (to_x, to_y), 0)):
            self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left",
                      buttons=held, clickCount=1)

    def picture(self, path: Path | None = None) -> bytes:
        """A picture of the window, as PNG."""
        png = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(png)
        return png


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a fresh profile, ended afterwards."""
    path = find()
    assert path is not None
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [path, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", "--disable-extensions", "--no-first-run",
             "--disable-dev-shm-usage", "--remote-debugging-port=0",
             f"--user-data-dir={folder}/profile", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        session = None
        try:
            port = _port(Path(folder) / "profile" / "DevToolsActivePort", process)

            async def connect() -> tuple[Any, Any]:
                session = aiohttp.ClientSession()
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(t for t in await answer.json(content_type=None)
                               if t["type"] == "page")
                return session, await session.ws_connect(
                    tab["webSocketDebuggerUrl"], max_msg_size=0)

            session, socket = loop.run_until_complete(connect())
            yield Browser(socket, loop.run_until_complete)
        finally:
            if session is not None:
                loop.run_until_complete(session.close())
            loop.close()
            process.terminate()
            process.wait(10)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        assert process.poll() is None, "the browser ended"
        time.sleep(0.05)
    raise AssertionError("the browser does not answer")
