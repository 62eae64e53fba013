"""The commands and their options; without a command it is the server that runs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kling_mcp import __version__
from kling_mcp.commands.catalog import check
from kling_mcp.commands.demo import demo
from kling_mcp.commands.doctor import doctor
from kling_mcp.commands.endpoints import add, remove
from kling_mcp.commands.install import HOSTS, Machine, install, uninstall
from kling_mcp.commands.jobs import jobs
from kling_mcp.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command"]


def command(arguments: Sequence[str]) -> int:
    """Run the command that *arguments* name; the exit code is the answer."""
    options = _parser().parse_args(arguments)
    _speak_utf8()
    match options.command:
        case "demo":
            return demo(options.image, options.model, options.shots)
        case "doctor":
            return doctor()
        case "install" | "uninstall":
            if options.command == "uninstall":
                return uninstall(options.host, Machine.this())
            return install(
                options.host, Machine.this(), only_print=options.print, reference=options.key_from_environment
            )
        case "jobs":
            return jobs(Settings.from_environment(), " ".join(options.job), follow=options.watch)
        case _ if options.action == "add":
            return add(Settings.from_environment(), options.endpoint_id)
        case _ if options.action == "remove":
            return remove(Settings.from_environment(), options.model, options.mode)
        case _:
            return check(Settings.from_environment())


def _speak_utf8() -> None:
    """
    Print everything, everywhere.

    Windows pipes default to a code page without the marks and bars that the commands print; some paths are not Unicode.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kling-mcp",
        description="Kling videos on fal.ai for any MCP client. Without a command: the MCP server on standard "
        "input and output.",
    )
    parser.add_argument("--version", action="version", version=f"kling-mcp {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo = commands.add_parser("demo", help="a whole job against the built-in simulator: no key, no money")
    demo.add_argument("--image", metavar="FILE", help="a picture to start from (default: a bundled one)")
    demo.add_argument("--model", metavar="M", help="a Kling model (default: the server's)")
    demo.add_argument("--shots", metavar="N", type=int, help="how many shots, 1 to 6 (default: 3, if the model can)")
    for name, what in (("install", "write this server into"), ("uninstall", "take this server out of")):
        command = commands.add_parser(name, help=f"{what} the configuration of an assistant")
        command.add_argument("host", metavar="HOST", choices=HOSTS, help=", ".join(HOSTS))
        if name == "install":
            command.add_argument("--print", action="store_true", help="show the change and write nothing")
            command.add_argument(
                "--key-from-environment",
                action="store_true",
                help="let the assistant take FAL_KEY from its environment",
            )
    commands.add_parser("doctor", help="check key, hosts, folders, ledger and prices; spends nothing")
    jobs = commands.add_parser("jobs", help="the ledger as a table, one job in full, or open jobs as they go on")
    jobs.add_argument("job", metavar="JOB_ID", nargs="*", help="one job: its id, or fal.ai's request id")
    jobs.add_argument("--watch", action="store_true", help="follow open jobs until none is open, or Ctrl-C")
    catalog = commands.add_parser("catalog", help="the endpoints with their schemas and prices")
    actions = catalog.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="compare bundled and added ones with fal.ai's; exit 1 where they differ")
    added = actions.add_parser("add", help="make an endpoint usable that is not bundled, from what fal.ai publishes")
    added.add_argument("endpoint_id", metavar="ENDPOINT_ID", help="such as kling/v4/image-to-video")
    removed = actions.add_parser("remove", help="take out what was added")
    removed.add_argument("model", metavar="MODEL", help="its name here, such as kling-v4")
    removed.add_argument("mode", metavar="MODE", help="such as image-to-video")
    return parser
