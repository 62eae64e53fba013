"""
Chromium, driven over its own debugging protocol (CDP): pages, frames, real clicks and keys, pictures of what is shown.

Small on purpose: what the tests of the page need, over the `websockets` package that fal's client brings.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

BINARIES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    # Nothing outside this machine, whatever a page asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-port=0",
)

Answer = tuple[int, dict[str, str], bytes]


def binary() -> str | None:
    """Where Chromium is, if it is."""
    return next((found for name in BINARIES if (found := shutil.which(name))), None)


@contextmanager
def running(profile: Path) -> Generator[str]:
    """Chromium with an empty *profile*; gives the address of its debugger."""
    chromium = binary()
    assert chromium is not None
    process = subprocess.Popen(
        [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                yield found[1]
                break
        else:
            raise RuntimeError("Chromium ended before it was ready")
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(20)


class Session:
    """One target of the browser (a page, or a frame with a process of its own)."""

    def __init__(self, browser: Browser, session_id: str, target: dict[str, Any] | None = None) -> None:
        self._browser = browser
        self.session_id = session_id
        self.target_id: str = (target or {}).get("targetId", "")
        self.parent_id: str | None = (target or {}).get("parentId")

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command of the protocol."""
        return await self._browser.call(method, params, self.session_id)

    async def run(self, script: str) -> Any:
        """The value of *script*; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    async def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until *condition* is true on the page."""
        script = (
            f"new Promise((done) => {{ const look = () => ({condition}) ? done() : setTimeout(look, 25); look(); }})"
        )
        try:
            with anyio.fail_after(seconds):
                await self.run(script)
        except TimeoutError:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"never true: {condition}\n{shown}") from None


class Browser:
    """The connection to a browser's debugger."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._sessions: dict[str, Session] = {}
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.serve: Callable[[str], Answer | None] = lambda _: None
        self.problems: list[str] = []

    async def call(self, method: str, params: dict[str, Any], session_id: str | None = None) -> dict[str, Any]:
        """One command, and its answer."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send(json.dumps(message | ({"sessionId": session_id} if session_id else {})))
        with anyio.fail_after(30):
            return await self._answers[number]

    async def listen(self) -> None:
        """Read what the browser says until it is gone."""
        async for raw in self._socket:
            message = json.loads(raw)
            if "id" in message:
                waiting = self._answers.pop(message["id"])
                if waiting.cancelled():
                    continue
                if "error" in message:
                    waiting.set_exception(RuntimeError(message["error"]["message"]))
                else:
                    waiting.set_result(message["result"])
                continue
            # An event may need commands of its own, whose answers are read here.
            task = asyncio.create_task(self._event(message["method"], message["params"], message.get("sessionId")))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _event(self, method: str, params: dict[str, Any], session_id: str | None) -> None:
        if method == "Target.attachedToTarget":
            session = Session(self, params["sessionId"], params["targetInfo"])
            await self._prepare(session)
            async with self._arrived:
                self._sessions[session.session_id] = session
                self._arrived.notify_all()
        elif method == "Fetch.requestPaused" and session_id is not None:
            await self._fetched(params, Session(self, session_id))
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))

    async def _prepare(self, session: Session) -> None:
        await session.call("Fetch.enable", patterns=[{"urlPattern": "https://*"}])
        await session.call("Runtime.enable")
        await session.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        await session.call("Runtime.runIfWaitingForDebugger")

    async def _fetched(self, paused: dict[str, Any], session: Session) -> None:
        answer = self.serve(paused["request"]["url"])
        if answer is None:
            await session.call("Fetch.failRequest", requestId=paused["requestId"], errorReason="NameNotResolved")
            return
        status, headers, body = answer
        await session.call(
            "Fetch.fulfillRequest",
            requestId=paused["requestId"],
            responseCode=status,
            responseHeaders=[{"name": name, "value": value} for name, value in headers.items()],
            body=base64.b64encode(body).decode(),
        )

    async def session(self, of: Callable[[Session], bool]) -> Session:
        """The session that *of* accepts, once there is one."""
        async with self._arrived:
            with anyio.fail_after(20):
                while not (found := [session for session in self._sessions.values() if of(session)]):
                    await self._arrived.wait()
        return found[-1]


@asynccontextmanager
async def connected(debugger: str) -> AsyncGenerator[Browser]:
    """A connection to the browser at *debugger*."""
    from websockets.asyncio.client import connect

    async with connect(debugger, max_size=None, proxy=None) as socket:
        browser = Browser(socket)
        listening = asyncio.create_task(browser.listen())
        try:
            yield browser
        finally:
            listening.cancel()


@asynccontextmanager
async def page(browser: Browser, url: str, *, width: int, scale: float = 1) -> AsyncGenerator[Session]:
    """A page at *url*, *width* CSS pixels wide, with *scale* device pixels for each."""
    context = (await browser.call("Target.createBrowserContext", {}))["browserContextId"]
    target = (await browser.call("Target.createTarget", {"url": "about:blank", "browserContextId": context}))[
        "targetId"
    ]
    attached = await browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})
    session = await browser.session(lambda one: one.session_id == attached["sessionId"])
    await session.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=1400, deviceScaleFactor=scale, mobile=False
    )
    await session.call("Page.navigate", url=url)
    try:
        yield session
    finally:
        await browser.call("Target.disposeBrowserContext", {"browserContextId": context})
