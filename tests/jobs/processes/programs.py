"""What the processes of these tests do."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import anyio

from tests.jobs.processes.watched import SwiftFal, WatchedLedger, at_point, report, swift_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kling_mcp.jobs.draft import Draft
    from kling_mcp.jobs.ledger import Ledger
    from kling_mcp.jobs.service import JobService
    from kling_mcp.settings import Folders, Settings

_AT_REST_WITHIN_SECONDS = 30.0


def import_everything() -> None:
    """Import what any of the programs imports while it runs, so that a forked process has it."""
    import sqlite3
    import uuid

    import httpx
    import jsonschema
    import PIL.Image

    import kling_mcp.catalog.models
    import kling_mcp.catalog.plan
    import kling_mcp.catalog.pricing
    import kling_mcp.cli
    import kling_mcp.fal.client
    import kling_mcp.jobs.inputs
    import kling_mcp.jobs.poller
    import kling_mcp.jobs.reconciler
    import kling_mcp.jobs.saver
    import kling_mcp.jobs.service
    import kling_mcp.jobs.sqlite.engine
    import kling_mcp.jobs.submitter
    import kling_mcp.server.app
    import kling_mcp.server.stdio

    kling_mcp.catalog.models.load()
    del sqlite3, uuid, httpx, jsonschema, PIL


def settings_of(environment: Mapping[str, str]) -> Settings:
    from kling_mcp.settings import Settings

    return Settings.from_environment(environment, folders=_no_folders)


def make_a_video(environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """
    What a user of a fresh server does: make the call, let recovery run, repeat the call, wait for the end.

    Options: `arguments` of the call, `read_seconds`, and those of `at_point`.
    """
    settings = settings_of(environment)
    passed = at_point(options)
    rounds = _Rounds()

    async def run() -> None:
        from kling_mcp.jobs.service import JobService

        service = JobService(
            settings,
            lambda: SwiftFal(settings, options.get("read_seconds", 1.0)),
            lambda: WatchedLedger(open_ledger(settings.data_dir), passed),  # type: ignore[arg-type]
            swift_runtime(passed, rounds.sleep),
        )
        with anyio.fail_after(_AT_REST_WITHIN_SECONDS):
            async with service.open():
                answers = [await answer(service, options["arguments"])]
                service.in_background(service.recover)
                await rounds.more(2)
                answers.append(await answer(service, options["arguments"]))
                await all_at_rest(service)
                # What has become unknown meanwhile is looked for once more.
                await rounds.more(2)
                await all_at_rest(service)
        report({"answers": answers})

    anyio.run(run)


def call_once(environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """
    A server that is called once and then stopped, however far it has come.

    Options: `arguments` of the call, `patience_seconds`, and those of `at_point`.
    """
    settings = settings_of(environment)
    passed = at_point(options)

    async def run() -> None:
        from kling_mcp.errors import KlingError
        from kling_mcp.jobs.service import JobService

        service = JobService(
            settings,
            lambda: SwiftFal(settings, 5.0),
            lambda: WatchedLedger(open_ledger(settings.data_dir), passed),  # type: ignore[arg-type]
            swift_runtime(passed),
        )
        async with service.open():
            report(await answer(service, options["arguments"]))
            with contextlib.suppress(KlingError), anyio.move_on_after(options["patience_seconds"]):
                await all_at_rest(service)

    anyio.run(run)


def only_recover(environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """A server that nobody calls: recovery, until nothing moves any more."""
    settings = settings_of(environment)
    rounds = _Rounds()

    async def run() -> None:
        from kling_mcp.jobs.service import JobService

        runtime = swift_runtime(lambda _: None, rounds.sleep)
        service = JobService(settings, lambda: SwiftFal(settings, 5.0), lambda: open_ledger(settings.data_dir), runtime)
        with anyio.fail_after(_AT_REST_WITHIN_SECONDS):
            async with service.open():
                service.in_background(service.recover)
                await rounds.more(2)
                await all_at_rest(service)

    anyio.run(run)


def serve(environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """
    The MCP server on standard input and output, as `kling-mcp` starts it.

    Options: `pause_seconds` (the longest pause between two rounds of recovery or two
    polls), `read_seconds`, and those of `at_point`.
    """
    from kling_mcp import logs
    from kling_mcp.server.app import build
    from kling_mcp.server.stdio import serve

    settings = settings_of(environment)
    passed = at_point(options)
    logs.configure(settings)
    longest_seconds = options.get("pause_seconds", 0.2)

    async def sleep(seconds: float) -> None:
        await anyio.sleep(min(seconds, longest_seconds))

    server = build(
        settings,
        runtime=swift_runtime(passed, sleep),
        open_fal=lambda settings: SwiftFal(settings, options.get("read_seconds", 5.0)),
        open_ledger=lambda: WatchedLedger(open_ledger(settings.data_dir), passed),  # type: ignore[arg-type, return-value]
    )

    async def serving() -> None:
        await serve(server, server.close)

    anyio.run(serving)
    logs.flush()
    os._exit(0)


def reserve_in_a_race(environment: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """
    Reserve and settle as fast as the ledger allows, together with every other process that does.

    Options: `name`, `times`, `ceiling_microusd`, `day_microusd`, `now_ms`. Reports how many were held and refused,
    and any other error.
    """
    from kling_mcp.errors import KlingError, OverBudget
    from kling_mcp.jobs.job import Accepted, Finished, Intent, Sending
    from kling_mcp.jobs.ledger import Limits

    ledger = open_ledger(settings_of(environment).data_dir)
    name, now_ms, ceiling_microusd = options["name"], options["now_ms"], options["ceiling_microusd"]
    limits = Limits(job_microusd=ceiling_microusd, day_microusd=options["day_microusd"])
    held, refused, errors = 0, 0, []
    report("ready")
    sys.stdin.buffer.read(1)
    for number in range(options["times"]):
        job_id = f"kj_{name}_{number}"
        intent = Intent(
            *(job_id, "account", job_id, 1, "o3-standard", "fal-ai/x", {}),
            *(ceiling_microusd // 2, ceiling_microusd, "basis", 5, None),
        )
        try:
            ledger.reserve(intent, limits, name, now_ms)
            held += 1
            if number % 2:
                ledger.apply(job_id, Sending({}), now_ms)
                ledger.apply(job_id, Accepted(f"request-{job_id}"), now_ms)
                ledger.apply(job_id, Finished({}, cost_microusd=ceiling_microusd), now_ms)
        except OverBudget:
            refused += 1
        except KlingError as error:
            errors.append(str(error))
    ledger.close()
    report({"held": held, "refused": refused, "errors": errors})


PROGRAMS: dict[str, Callable[[Mapping[str, str], Mapping[str, Any]], None]] = {
    "make_a_video": make_a_video,
    "call_once": call_once,
    "only_recover": only_recover,
    "serve": serve,
    "reserve_in_a_race": reserve_in_a_race,
}


def open_ledger(folder: Path) -> Ledger:
    """The real engine, where a server of these settings has it."""
    import uuid

    from kling_mcp.jobs.sqlite.engine import SqliteLedger

    return SqliteLedger(folder, lambda: uuid.uuid4().hex)


async def draft_of(service: JobService, arguments: Mapping[str, object]) -> Draft:
    """What `image_to_video` makes of *arguments*."""
    from kling_mcp.catalog.models import load
    from kling_mcp.catalog.plan import plan

    wanted = plan(load(), "image_to_video", arguments)
    return await service.prepare(wanted, arguments)


async def answer(service: JobService, arguments: Mapping[str, object]) -> str:
    """The id of the job that answers the call, or the code of the refusal."""
    from kling_mcp.errors import KlingError

    try:
        return (await service.start(await draft_of(service, arguments))).job.job_id
    except KlingError as refusal:
        return refusal.code


async def all_at_rest(service: JobService) -> None:
    """Wait until nothing more will happen to any job by itself soon."""
    while moving := [job for job in await service.store.page(None, 10_000, None) if not service.is_settled(job)]:
        await service.store.wait(moving[0], 1.0)


class _Rounds:
    """Counts the rounds of recovery by the pause after each."""

    def __init__(self) -> None:
        self._over = 0
        self._next = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        from kling_mcp.jobs.reconciler import EVERY_SECONDS

        if seconds == EVERY_SECONDS:
            self._over += 1
            self._next.set()
            self._next = anyio.Event()
        await anyio.sleep(min(seconds, 0.01))

    async def more(self, count: int) -> None:
        """Wait for that many rounds that are yet to end."""
        wanted = self._over + count
        while self._over < wanted:
            await self._next.wait()


def _no_folders() -> Folders:
    from pathlib import Path

    from kling_mcp.settings import Folders

    nowhere = Path("/nonexistent")
    return Folders(nowhere, nowhere, nowhere, nowhere, nowhere)
