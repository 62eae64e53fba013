"""
The job's page in a real browser, in a host that speaks MCP Apps, before the real server and the simulator.

Pictures of what was seen are left in `artifacts/ui`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from . import chromium
from .host import CDN, DARK, LIGHT, theatre

if TYPE_CHECKING:
    from collections.abc import Generator

    from .host import Theatre, View

pytest.importorskip("websockets", reason="websockets, which fal-client brings, is not installed")
pytestmark = [
    pytest.mark.anyio,
    # One browser for the file.
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(chromium.binary() is None, reason="Chromium is not installed"),
]

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "ui"
SHOTS = [
    {"prompt": "Wide shot: a small boat drifts across the still bay at dusk, slow push in.", "duration": 5},
    {"prompt": "Medium shot: the sail catches the last light, the camera pans left.", "duration": 3},
    {"prompt": "Close-up: the sun touches the horizon, the water turns to copper.", "duration": 4},
]
# How many timers the page sets when it plans its next look.
LOOKS_AHEAD = """(() => {
  const real = window.setTimeout; let set = 0;
  window.setTimeout = (...given) => { set += 1; return real(...given); };
  plan();
  window.setTimeout = real;
  return set;
})()"""


@pytest.fixture(scope="module")
def debugger(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with chromium.running(tmp_path_factory.mktemp("profile")) as address:
        yield address


def film(house: Theatre, **more: Any) -> dict[str, Any]:
    return {"image": str(house.image), "shots": SHOTS, "generate_audio": True, **more}


def clip(house: Theatre, **more: Any) -> dict[str, Any]:
    return {"image": str(house.image), "prompt": "The boat drifts.", **more}


async def job_of(house: Theatre, tool: str, arguments: dict[str, Any], seconds: float, state: str) -> dict[str, Any]:
    """A job that was begun *seconds* ago, before anybody looked, and has come to *state*."""
    job = (await house.client.call_tool(tool, arguments)).structured_content
    house.clock.advance(seconds)
    while job is not None and (job["state"] != state or (state == "completed" and not job["video"]["saved_to"])):
        again = {"job_id": job["job_id"], "wait_seconds": 1}
        job = (await house.client.call_tool("get_job", again)).structured_content
    assert job is not None
    return job


async def finished(house: Theatre) -> dict[str, Any]:
    return await job_of(house, "image_to_video", clip(house), 400, "completed")


async def playing(view: View) -> None:
    await view.page.until("!player.hidden && player.duration > 0")


async def test_a_job_is_seen_from_the_line_to_the_playing_video(debugger: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house, house.show("multi_shot_video", film(house)) as view:
            await view.state("queued")
            await view.page.until("!document.querySelector('#still').hidden")
            lengths = "[...document.querySelectorAll('#strip li')].map((cell) => cell.getBoundingClientRect().width)"
            one, two, three = await view.page.run(lengths)
            shots = await view.text("#shots")
            assert one / two == pytest.approx(5 / 3, rel=0.02)
            assert one / three == pytest.approx(5 / 4, rel=0.02)
            assert all(shot["prompt"] in shots for shot in SHOTS)
            assert re.search(r"0:05.0:08", shots)
            assert await view.text("#state") == "In line, place 1"
            assert "about $1.344" in await view.text("#facts")
            assert (await view.page.run("document.querySelector('#still').src")).startswith(f"{CDN}/files/")
            assert await view.page.run(LOOKS_AHEAD) == 1
            await view.picture(ARTIFACTS / "queued.png")

            house.clock.advance(130)
            await view.state("running")
            bar = "document.querySelector('[role=progressbar]').getAttribute"
            assert int(await view.page.run(f"{bar}.call(document.querySelector('#fill'), 'aria-valuenow')")) >= 50
            assert (await view.text("#clock")).endswith(" of about 3:46")
            assert (await view.text("#clock")).startswith("2:1")
            assert await view.page.run("document.querySelector('#say').textContent") == "Rendering"
            await view.picture(ARTIFACTS / "running.png")

            house.clock.advance(120)
            await view.state("completed")
            await playing(view)
            await view.click("#shots li:nth-child(2) button")
            await view.page.until("player.currentTime > 5.2 && !player.paused")
            assert await view.page.run("document.querySelector('#shots .now .text').textContent") == SHOTS[1]["prompt"]
            await view.picture(ARTIFACTS / "playing.png")
            await view.page.until("job.video.saved_to")
            assert await view.page.run(LOOKS_AHEAD) == 0

            await view.click("#open")
            await view.host.run("new Promise((done) => setInterval(() => links.length && done(), 10))")
            url = await view.page.run("player.src")
            assert url.startswith(f"{CDN}/files/")
            assert await view.host.run("links") == [url]
            saved = await view.text("#path")
            assert await anyio.Path(saved).is_file()
            assert "$1.344 billed" in await view.text("#facts")
            (told,) = await view.said("ui/update-model-context")
            assert told["structuredContent"]["state"] == "completed"
            assert url in told["content"][0]["text"]
            assert await view.said("ui/notifications/size-changed")
            assert {call["name"] for call in await view.said("tools/call")} == {"get_job"}


async def test_cancelling_is_asked_twice_and_done_with_the_keyboard_alone(debugger: str, tmp_path: Path) -> None:
    focus = "document.activeElement.id === "
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house, house.show("image_to_video", clip(house)) as view:
            await view.state("queued")
            await view.page.run("window.focus()")
            await view.page.run("document.querySelector('#cancel').focus()")
            await view.press("Enter")
            await view.page.until(f"{focus}'keep'")
            assert "costs nothing" in await view.text("#really")
            await view.press("Escape")
            await view.page.until(f"{focus}'cancel'")
            assert await view.said("tools/call") == []
            await view.press("Enter")
            await view.page.until(f"{focus}'keep'")
            await view.press("Tab")
            await view.page.until(f"{focus}'sure'")
            await view.press("Enter")
            await view.state("cancelled")
            text = await view.text()
            await view.picture(ARTIFACTS / "cancelled.png")

            assert await view.page.run("document.activeElement.id") == "state"
            assert "Nothing was charged." in text
            assert "nothing" in await view.text("#facts")
            assert [call["name"] for call in await view.said("tools/call")] == ["cancel_job"]
            assert await view.page.run(LOOKS_AHEAD) == 0
            assert "taken out of the queue" in await view.page.run("document.querySelector('#say').textContent")


async def test_cancelling_a_running_job_warns_of_the_bill_before_and_after(debugger: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            job = await job_of(house, "image_to_video", clip(house), 5, "running")
            async with house.show("get_job", {"job_id": job["job_id"]}, context=DARK, width=320) as view:
                await view.state("running")
                await view.page.until("!document.querySelector('#still').hidden")
                await view.click("#cancel")
                assert "may still finish, and be billed about $0.42" in await view.text("#really")
                await view.picture(ARTIFACTS / "cancel-asks-320.png")
                await view.click("#sure")
                await view.page.until("document.querySelector('#trouble').innerText.includes('may still finish')")
                assert await view.page.run("document.querySelector('main').dataset.state") == "running"
                assert await view.page.run("document.querySelector('#cancel').hidden")
                assert await view.page.run(LOOKS_AHEAD) == 1


async def test_a_failure_says_what_why_and_whether_it_was_billed_and_nothing_of_it_is_markup(
    debugger: str, tmp_path: Path
) -> None:
    from kling_mcp.simulator.outcomes import failure

    attack = "<img src=x onerror='window.taken = 1'><b>bold</b>"
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            house.simulator.faults.fail(failure("content_policy_violation", f"Flagged {attack}"))
            arguments = {"image": "https://example.com/harbour.png", "prompt": attack}
            job = await job_of(house, "image_to_video", arguments, 400, "failed")
            async with house.show("get_job", {"job_id": job["job_id"]}) as view:
                await view.state("failed")
                assert "harbour.png" in await view.text("#stage")
                text = await view.text("#trouble")
                await view.picture(ARTIFACTS / "failed.png")

                assert "content" in text
                assert "may have been charged" in text
                assert "https://fal.ai/dashboard/requests" in text
                assert attack in await view.text("#shots")
                assert await view.page.run("document.querySelectorAll('#job b').length") == 1
                assert await view.page.run("document.querySelectorAll('img').length") == 1
                assert await view.page.run("window.taken") is None
                assert await view.page.run(LOOKS_AHEAD) == 0


async def test_a_link_that_has_expired_is_asked_for_again(debugger: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            job = await finished(house)
            url = job["video"]["url"].replace(house.media, CDN)
            old = {url: url.replace("output", "expired")}
            async with house.show("get_job", {"job_id": job["job_id"]}, stale=old) as view:
                await playing(view)

                assert await view.page.run("player.src") == url
                assert [call["name"] for call in await view.said("tools/call")] == ["get_job"]
                assert await view.page.run("document.querySelector('#trouble').hidden")
                # The model had this result with the call.
                assert await view.said("ui/update-model-context") == []


async def test_a_video_that_cannot_be_loaded_leaves_its_last_frame_and_two_ways_to_it(
    debugger: str, tmp_path: Path
) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            job = await finished(house)
            house.gone.add(job["video"]["url"].replace(house.media, CDN))
            async with house.show("get_job", {"job_id": job["job_id"]}, open_links=False) as view:
                await view.page.until("document.querySelector('#still').src.startsWith('data:image/png')")
                await view.page.until("!document.querySelector('#again').hidden")
                assert "does not play here" in await view.text("#trouble")
                assert await view.text("#path") == job["video"]["saved_to"]
                await view.picture(ARTIFACTS / "expired.png")
                await view.click("#open")
                await view.page.until(f"document.querySelector('#trouble').innerText.includes('{CDN}')")

                house.gone.clear()
                await view.click("#again")
                await playing(view)
                assert await view.page.run("document.querySelector('#trouble').hidden")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_page_follows_the_hosts_theme_and_stays_readable_and_narrow(
    theme: str, debugger: str, tmp_path: Path
) -> None:
    context = DARK if theme == "dark" else LIGHT
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            call = film(house, shots=[*SHOTS[:2], {"prompt": "A" * 300, "duration": 4}])
            job = await job_of(house, "multi_shot_video", call, 60, "running")
            shown = {"arguments": {"job_id": job["job_id"]}, "width": 320, "context": context}
            async with house.show("get_job", **shown, prefers_reduced_motion="reduce") as view:
                await view.state("running")
                await view.page.until("!document.querySelector('#still').hidden")
                await view.picture(ARTIFACTS / f"{theme}-320.png")
                assert await view.page.run("document.documentElement.scrollWidth") == 320
                dot = "getComputedStyle(document.querySelector('h1'), '::before').animationName"
                assert await view.page.run(dot) == "none"
                for css in ("h1", "#clock", "#shots .text", "#cancel", "dt", "footer"):
                    assert await contrast(view, css, "body") >= 4.5, css
            async with house.show("get_job", **shown) as view:
                await view.state("running")
                assert await view.page.run(dot) == "breathe"

            house.clock.advance(300)
            await job_of(house, "multi_shot_video", call, 0, "completed")
            async with house.show("get_job", **shown) as view:
                await view.state("completed")
                await playing(view)
                await view.picture(ARTIFACTS / f"{theme}-320-finished.png")
                assert await view.page.run("document.documentElement.scrollWidth") == 320
                for css, on in (("#open", "#open"), ("#path", "body"), ("#shots button", "body")):
                    assert await contrast(view, css, on) >= 4.5, css

                other = "light" if theme == "dark" else "dark"
                before = await colour(view, "body", "backgroundColor")
                await view.host.run(f"notify('ui/notifications/host-context-changed', {{ theme: '{other}' }})")
                await view.page.until(f"document.documentElement.style.colorScheme === '{other}'")
                after = await colour(view, "body", "backgroundColor")
                assert (sum(before) < sum(after)) is (theme == "dark")
                if theme == "dark":
                    assert before == [0x1F, 0x1E, 0x1D]


async def colour(view: View, css: str, name: str) -> list[int]:
    script = f"getComputedStyle(document.querySelector({css!r})).{name}.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    return await view.page.run(script)


async def contrast(view: View, css: str, on: str) -> float:
    """The ratio of WCAG 2 between the text of *css* and the ground of *on*."""

    def light(rgb: list[int]) -> float:
        parts = [part / 255 for part in rgb]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(await colour(view, css, "color")), light(await colour(view, on, "backgroundColor"))))[
        ::-1
    ]
    return (high + 0.05) / (low + 0.05)


async def test_a_screen_reader_finds_names_and_roles(debugger: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            job = await job_of(house, "multi_shot_video", film(house), 60, "running")
            async with house.show("get_job", {"job_id": job["job_id"]}) as view:
                await view.state("running")
                await view.page.until("!document.querySelector('#still').hidden")
                assert {
                    ("main", "Rendering"),
                    ("heading", "Rendering"),
                    ("progressbar", "Progress"),
                    ("list", "Shots"),
                    ("button", "Cancel the job…"),
                    ("image", "The start frame"),
                    ("status", ""),
                } <= await names(view)

            house.clock.advance(300)
            await job_of(house, "multi_shot_video", film(house), 0, "completed")
            async with house.show("get_job", {"job_id": job["job_id"]}) as view:
                await playing(view)
                seen = await names(view)
                assert {
                    ("Video", "The finished video"),
                    ("button", "Play shot 2 from 0:05"),
                    ("button", "Open the video"),
                } <= seen
                assert "progressbar" not in {role for role, _ in seen}


async def names(view: View) -> set[tuple[str, str]]:
    tree = await view.page.call("Accessibility.getFullAXTree")
    return {
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree["nodes"] if not node["ignored"]
    }


async def test_a_call_that_starts_nothing_is_shown_as_such(debugger: str, tmp_path: Path) -> None:
    from decimal import Decimal

    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger, confirm_above_usd=Decimal("0.10")) as house:
            async with house.show("image_to_video", clip(house, duration=99)) as view:
                await view.state("refused")
                text = await view.text()
                assert "duration" in text
                assert "Nothing was charged." in text
                assert "invalid_arguments" not in text
            async with house.show("image_to_video", clip(house)) as view:
                await view.state("needs_confirmation")
                await view.picture(ARTIFACTS / "price.png")
                assert "about $0.42" in await view.text("#facts")
                assert "Tell the assistant" in await view.text("#trouble")
                assert await view.page.run(LOOKS_AHEAD) == 0


async def test_a_job_that_nobody_is_certain_of_is_shown_as_such_and_still_looked_after(
    debugger: str, tmp_path: Path
) -> None:
    from kling_mcp.simulator.faults import DropAfterAccept

    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            house.simulator.faults.add("submit", DropAfterAccept())
            async with house.show("image_to_video", clip(house)) as view:
                await view.state("unknown")
                await view.picture(ARTIFACTS / "unknown.png")
                assert await view.text("#state") == "Not certain"
                assert "not sent again" in await view.text("#trouble")
                assert await view.page.run("document.querySelector('#cancel').hidden")
                assert await view.page.run(LOOKS_AHEAD) == 1


async def test_looking_ends_when_the_host_takes_the_page_down(debugger: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house, house.show("image_to_video", clip(house)) as view:
            await view.state("queued")
            assert (await view.host.run("request('ping', {})"))["result"] == {}
            assert (await view.host.run("request('other', {})"))["error"]["code"] == -32601
            gone = await view.host.run("request('ui/resource-teardown', { reason: 'closed' })")
            assert gone["result"] == {}
            assert await view.page.run(LOOKS_AHEAD) == 0


async def test_a_continued_video_begins_with_the_last_frame_of_the_one_before(debugger: str, tmp_path: Path) -> None:
    """
    The picture is not at any address before it is uploaded: it comes from the server.
    """
    with anyio.fail_after(60):
        async with theatre(tmp_path, debugger) as house:
            job = await finished(house)
            frame = f"kling://jobs/{job['job_id']}/last-frame"
            bad = {"image": frame, "prompt": "On.", "duration": 99}
            async with house.show("image_to_video", bad) as view:
                await view.page.until("document.querySelector('#still')?.src.startsWith('data:image/png')")
                await view.page.until("!document.querySelector('#still').hidden")
                assert await view.said("resources/read") == [{"uri": frame}]
