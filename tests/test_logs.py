"""The log: nobody who writes to it waits, and trouble that repeats itself does not fill it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading

import pytest

from kling_mcp.logs import LogWriter, Repetitions

LINE = b"x" * 1000
ROOM = 50_000


def read_until(descriptor: int, text: bytes) -> bytes:
    """What comes from *descriptor* up to *text*."""
    seen = b""
    while text not in seen:
        seen += os.read(descriptor, 65536)
    return seen


def test_a_log_that_nobody_reads_is_dropped_and_counted_and_the_count_is_told_later() -> None:
    """
    A thousand lines are put while the pipe is full; the ones before and the ones after arrive whole.
    """
    reading, writing = os.pipe()
    log = LogWriter(writing, queue_bytes=ROOM)
    for _ in range(1000):
        log.put(LINE)
    log.flush(0.01)
    seen = read_until(reading, b'"lines": ')
    log.put(b"after")
    seen += read_until(reading, b"after\n")

    lines = seen.splitlines()
    told = [json.loads(line) for line in lines if line.startswith(b"{")]
    assert lines.count(LINE) + sum(line["lines"] for line in told) == 1000
    assert told[0]["level"] == "WARNING"
    assert lines[-1] == b"after"


def test_what_anybody_writes_to_a_descriptor_that_was_taken_over_arrives_in_whole_lines() -> None:
    """
    A traceback of a thread, a warning of a library in C; the key is masked in those too.
    """
    reading, writing = os.pipe()
    _, standard = os.pipe()
    log = LogWriter(writing, [b"secret"], queue_bytes=ROOM)
    log.take_over(standard)
    os.write(standard, b"half a li")
    os.write(standard, b"ne\nTraceback of a secret\nno end")
    log.flush(5)

    assert read_until(reading, b"no end\n") == b"half a line\nTraceback of a ***\nno end\n"


def test_a_descriptor_taken_over_takes_more_than_its_pipe_holds_though_nobody_reads() -> None:
    """
    Two megabytes of stray text; a writer that blocked would never set the event.
    """
    _, writing = os.pipe()
    _, standard = os.pipe()
    LogWriter(writing, queue_bytes=ROOM).take_over(standard)
    done = threading.Event()

    def write() -> None:
        for _ in range(2000):
            os.write(standard, LINE + b"\n")
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(30)


def test_a_reader_that_has_gone_harms_nobody() -> None:
    """
    The host closed its end: EPIPE for every line.
    """
    reading, writing = os.pipe()
    os.close(reading)
    log = LogWriter(writing, queue_bytes=ROOM)
    log.put(b"to nobody")
    log.flush(5)
    log.put(b"to nobody either")
    log.flush(5)


def trouble(at_seconds: float, **details: object) -> logging.LogRecord:
    """A warning at a time."""
    values = {"name": "kling_mcp.x", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "polling failed"}
    return logging.makeLogRecord({**values, "created": at_seconds, "job_id": "kj_1", "why": "no answer", **details})


def test_trouble_that_repeats_itself_is_told_once_and_then_at_growing_distance() -> None:
    """
    A poll every 3 seconds for a day; each line says how many were left out before it.
    """
    filter_ = Repetitions()
    records = [trouble(1000.0 + second) for second in range(0, 86_400, 3)]
    told = [record for record in records if filter_.filter(record)]

    gaps = [later.created - earlier.created for earlier, later in itertools.pairwise(told)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 60
    assert len(told) < 40
    assert "repeated" not in vars(told[0])
    assert [vars(record)["repeated"] for record in told[1:3]] == [19, 39]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"why": "no answer"}, True),
        ({"why": "503 of fal"}, False),
        ({"job_id": "kj_2"}, False),
        ({"msg": "saving failed"}, False),
        ({"created": 1000.0 + 3600}, False),
        ({"levelno": logging.INFO}, False),
    ],
)
def test_only_the_same_trouble_of_the_same_job_is_a_repetition(other: dict[str, object], same: bool) -> None:
    """
    Another job, another reason, or the same an hour later is news; so is whatever is no trouble.
    """
    filter_ = Repetitions()
    assert filter_.filter(trouble(1000))
    assert filter_.filter(trouble(1001, **other)) is not same


def test_a_reason_that_only_counts_on_is_the_same_reason() -> None:
    """
    "no answer for 17 s" and then "for 18 s".
    """
    filter_ = Repetitions()
    told = [filter_.filter(trouble(1000 + n, why=f"no answer for {n} s")) for n in range(20)]
    assert told == [True, *[False] * 19]
