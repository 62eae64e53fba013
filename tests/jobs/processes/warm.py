"""
A process that has imported everything, and forks itself for each process that a test wants.

A server starts in about a second, nearly all of it imports. Tests here start
more than a thousand processes, so they are forked from this one: each is still
a process of its own, with its own event loop, ledger connection, locks and
pipes, and the kernel treats it like any other when it is killed. It has one
thread and opens nothing, so that there is nothing to inherit. Some tests start
servers cold, by `python -m kling_mcp`, to show that it makes no difference.

Orders come as lines of JSON over the socket whose descriptor is the argument,
with the three standard descriptors of the new process as ancillary data.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    from tests.jobs.processes import programs

    programs.import_everything()
    gc.freeze()
    control.sendall(b"{}\n")
    while (order := _order(control)) is not None:
        words, descriptors = order
        if "status" in words:
            _, status = os.waitpid(words["status"], 0)
            answer = {"exit_code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                control.close()
                _become(words, descriptors)
            answer = {"pid": pid}
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(json.dumps(answer).encode() + b"\n")


def _order(control: socket.socket) -> tuple[dict, list[int]] | None:
    data, descriptors, _, _ = socket.recv_fds(control, 65536, 3)
    while data and not data.endswith(b"\n"):
        data += control.recv(65536)
    return (json.loads(data), list(descriptors)) if data else None


def _become(words: dict, descriptors: list[int]) -> None:
    from tests.jobs.processes import programs

    code = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        # A child that hangs must not outlive its test by much.
        signal.alarm(120)
        programs.PROGRAMS[words["program"]](words["environment"], words["options"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
