"""
A host of MCP Apps: the real server in memory, the simulator behind it, and a browser in front.

The page runs where a host would run it: in a sandbox without an origin, under a
content security policy made of what the server declares and nothing more. Its
messages reach the server through `host.html`. The simulator's files get the
addresses that they would have at fal, and the browser is served them from there.
"""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import anyio
import mcp_types as t
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from kling_mcp.runtime import Runtime
from kling_mcp.server.app import build
from kling_mcp.settings import Secret, Settings
from kling_mcp.simulator.app import Simulator
from kling_mcp.simulator.clock import ManualClock
from kling_mcp.simulator.render import sample_picture
from kling_mcp.simulator.serve import serving

from . import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from .chromium import Answer, Browser, Session

CDN = "https://v3b.fal.media"
PAGE = "ui://kling/job.html"

# As Claude's are: a host that gives every variable that the page reads.
DARK = {
    "theme": "dark",
    "styles": {
        "variables": {
            "--color-background-primary": "light-dark(#ffffff, #1f1e1d)",
            "--color-background-secondary": "light-dark(#f5f4ef, #2a2927)",
            "--color-text-primary": "light-dark(#141413, #faf9f5)",
            "--color-text-secondary": "light-dark(#5e5d59, #b0aea5)",
            "--color-border-secondary": "light-dark(#dedcd1, #3d3c39)",
            "--border-radius-md": "10px",
        }
    },
}
LIGHT = {"theme": "light"}


@dataclass
class View:
    """The page as a host shows it: the host around it, and the page itself."""

    host: Session
    page: Session

    async def click(self, css: str) -> None:
        """A real click in the middle of what *css* finds."""
        place = f"document.querySelector({json.dumps(css)})"
        await self.page.until(f"{place} && {place}.getBoundingClientRect().width > 0")
        await self.fits()
        await self.page.run(f"{place}.scrollIntoView({{ block: 'nearest' }})")
        await self.page.run(
            f"{place}.addEventListener('mousedown', () => {{ window.pressed = true; }}, {{ once: true }})"
        )
        await self.page.run("window.pressed = false")
        # The browser learns a moment after the page where a frame of another process now is.
        while not await self.page.run("window.pressed"):
            x, y = await self.page.run(
                f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({place}.getBoundingClientRect())"
            )
            for kind in ("mousePressed", "mouseReleased"):
                await self.host.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key: str) -> None:
        """A real key."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.host.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    async def said(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every message of the page with *method*."""
        return await self.host.run(f"log.filter((one) => one.method === {json.dumps(method)}).map((one) => one.params)")

    async def state(self, wanted: str) -> None:
        """Wait until the page shows *wanted*."""
        await self.page.until(f"document.querySelector('main').dataset.state === {json.dumps(wanted)}")

    async def text(self, css: str = "main") -> str:
        """What is to be read in what *css* finds."""
        return await self.page.run(f"document.querySelector({json.dumps(css)}).innerText")

    async def fits(self) -> None:
        """Wait until the host has given the page its height, so that nothing is cut off."""
        script = "document.documentElement.scrollHeight <= innerHeight"
        await self.page.until(script)

    async def picture(self, path: Path | None = None) -> bytes:
        """What is on the screen, as a PNG; also written to *path*."""
        await self.fits()
        height = await self.host.run("frame.getBoundingClientRect().height")
        width = await self.host.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.host.call("Page.captureScreenshot", format="png", clip=clip)
        data = base64.b64decode(shot["data"])
        if path is not None:
            await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
            await anyio.Path(path).write_bytes(data)
        return data


@dataclass
class Theatre:
    """Server, simulator and browser; the simulator's time moves only when a test moves it."""

    client: Client
    simulator: Simulator
    clock: ManualClock
    browser: Browser
    image: Path
    address: str = ""
    media: str = ""
    html: str = ""
    policy: str = ""
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Addresses under which the CDN has nothing any more."""

    @asynccontextmanager
    async def show(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        width: int = 720,
        context: dict[str, Any] | None = None,
        scale: float = 1,
        open_links: bool = True,
        stale: dict[str, str] | None = None,
        **media: str,
    ) -> AsyncGenerator[View]:
        """
        Let the host call *tool* and show the page with what comes of it.

        Args:
            width: Of the page, in CSS pixels.
            context: The host's theme and styles.
            scale: Device pixels per CSS pixel.
            open_links: Whether the host opens links.
            stale: Words of the first answer, and older ones that the host remembers in their place.
            media: Media features with ``_`` for ``-``, such as ``prefers_reduced_motion="reduce"``.
        """
        name = f"plan-{len(self.plans)}"
        self.plans[name] = {
            "name": name,
            "tool": tool,
            "arguments": arguments,
            "context": context or LIGHT,
            "openLinks": open_links,
            "stale": stale or {},
        }
        url = f"http://{self.address}/host/{name}"
        async with chromium.page(self.browser, url, width=width, scale=scale) as host:
            page = await self.browser.session(lambda one: one.parent_id == host.target_id)
            features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
            await page.call("Emulation.setEmulatedMedia", features=features)
            view = View(host, page)
            yield view
            assert await host.run("faults") == []
            assert self.browser.problems == []

    def app(self) -> Starlette:
        """The host's own web server."""
        return Starlette(
            routes=[
                Route("/host/{plan}", self._host),
                Route("/view/{plan}", self._view),
                Route("/rpc", self._rpc, methods=["POST"]),
            ]
        )

    async def _host(self, request: Request) -> HTMLResponse:
        plan = self.plans[request.path_params["plan"]]
        # Another site than the host's, so that the page has a process of its own.
        view = f"http://localhost:{urlsplit(str(request.url)).port}/view/{plan['name']}"
        given = json.dumps(plan | {"view": view}).replace("</", "<\\/")
        return HTMLResponse(Path(__file__).with_name("host.html").read_text("utf-8").replace("__PLAN__", given))

    async def _view(self, request: Request) -> HTMLResponse:
        return HTMLResponse(self.html, headers={"Content-Security-Policy": self.policy})

    async def _rpc(self, request: Request) -> JSONResponse:
        asked = json.loads(await request.body())
        params = asked["params"]
        try:
            if asked["method"] == "tools/call":
                answer: Any = await self.client.call_tool(params["name"], params["arguments"])
            else:
                answer = await self.client.read_resource(params["uri"])
        except MCPError as error:
            return JSONResponse({"error": {"code": error.error.code, "message": error.error.message}})
        words = json.dumps(answer.model_dump(by_alias=True, mode="json", exclude_none=False))
        words = words.replace(self.media, CDN)
        if asked["first"]:
            for new, old in self.plans[asked["plan"]]["stale"].items():
                words = words.replace(new, old)
        result = {key: value for key, value in json.loads(words).items() if value is not None}
        return JSONResponse({"result": result})

    def serve(self, url: str) -> Answer | None:
        """What fal's CDN would answer."""
        file = self.simulator.files.get(urlsplit(url).path.lstrip("/")) if url.startswith(CDN) else None
        if file is None or url in self.gone:
            return None if not url.startswith(CDN) else (404, {"content-type": "text/plain"}, b"")
        return 200, {"content-type": file.content_type, "accept-ranges": "bytes"}, file.data


@asynccontextmanager
async def theatre(folder: Path, debugger: str, **settings: Any) -> AsyncGenerator[Theatre]:
    """A host with everything that belongs to it, in *folder*."""
    clock = ManualClock()
    simulator = Simulator(clock=clock)
    image = folder / "harbour-dusk.jpg"
    image.write_bytes(sample_picture())
    async with serving(simulator) as urls, chromium.connected(debugger) as browser:
        environment = {
            **urls.environment(),
            "KLING_MCP_DATA_DIR": str(folder / "state"),
            "KLING_MCP_OUTPUT_DIR": str(folder / "Videos" / "Kling"),
            "KLING_MCP_INPUT_DIRS": str(folder),
            "KLING_MCP_POLL_SECONDS": "0.05",
            "KLING_MCP_CONFIRM_ABOVE_USD": "5",
        }
        found = replace(Settings.from_environment(environment), fal_key=Secret("test:key"), **settings)
        runtime = Runtime(now_ms=lambda: int(clock.now() * 1000))
        async with Client(build(found, runtime=runtime)) as client:
            (part,) = (await client.read_resource(PAGE)).contents
            assert isinstance(part, t.TextResourceContents)
            assert part.meta is not None
            house = Theatre(client, simulator, clock, browser, image)
            house.media, house.html = urls.media, part.text
            house.policy = _policy(part.meta["ui"]["csp"])
            browser.serve = house.serve
            async with serving(cast("Simulator", SimpleNamespace(app=house.app()))) as own:
                house.address = own.media_host
                yield house


def _policy(csp: dict[str, list[str]]) -> str:
    """The policy that the specification builds of what a page declares."""
    assert set(csp) == {"resourceDomains"}
    more = " ".join(csp["resourceDomains"])
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-inline' {more}; style-src 'self' 'unsafe-inline' {more}; "
        f"img-src 'self' data: {more}; media-src 'self' data: {more}; font-src 'self' {more}; "
        "connect-src 'none'; frame-src 'none'; object-src 'none'; base-uri 'self'"
    )
