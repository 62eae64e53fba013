"""
A session of fal's own Python client, run as a program of its own.

Its module constants are assigned here, so it must not share a process with
other tests. It speaks TLS to the queue, whose host it takes from the
environment as its documentation says.

    python official_python.py '{"rest": …, "media": …, "endpoint": …, "key": …, "picture": …}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import fal_client.client as fal


def main(given: dict[str, Any]) -> dict[str, Any]:
    fal.REST_URL, fal.CDN_URL = given["rest"], given["media"]
    fal.MULTIPART_THRESHOLD, fal.MULTIPART_CHUNK_SIZE = 200_000, 100_000
    client = fal.SyncClient(key=given["key"])
    endpoint = given["endpoint"]
    seen: dict[str, Any] = {}

    hour = fal.StorageSettings(expires_in="1h")
    seen["uploaded"] = client.upload(Path(given["picture"]).read_bytes(), "image/jpeg", "boat.jpg", lifecycle=hour)
    seen["uploaded_in_parts"] = client.upload(bytes(450_000), "application/octet-stream", "big.bin")
    seen["uploaded_by_initiate"] = client.upload(b"another", "image/jpeg", "boat.jpg", repository="fal")

    body = {"image_url": seen["uploaded"], "prompt": "The boat drifts.", "duration": "5"}
    handle = client.submit(endpoint, body, priority="low", hint="a-runner", start_timeout=3600)
    waiting = client.submit(endpoint, body)
    seen["request_id"] = handle.request_id
    seen["waiting"] = type(waiting.status()).__name__
    waiting.cancel()
    cancelled = waiting.status(with_logs=True)
    assert isinstance(cancelled, fal.Completed)
    seen["cancelled"] = cancelled.error_type
    try:
        waiting.cancel()
    except fal.FalClientHTTPError as error:
        seen["cancelled_again"] = error.status_code
    events = list(handle.iter_events(with_logs=True, interval=0.05))
    seen["events"] = list(dict.fromkeys(type(event).__name__ for event in events))
    last = events[-1]
    assert isinstance(last, fal.Completed)
    seen["logs"] = [line["message"] for line in last.logs or ()]
    seen["metrics"] = sorted(last.metrics)
    seen["result"] = handle.get()
    seen["result_by_id"] = client.result(endpoint, handle.request_id)
    seen["status_by_id"] = type(client.status(endpoint, handle.request_id)).__name__

    try:
        client.subscribe(endpoint, {"prompt": "no picture"}, interval=0.05)
    except fal.FalClientHTTPError as error:
        seen["invalid"] = [error.status_code, error.message]
    try:
        client.submit("fal-ai/kling-video/o9/image-to-video", body)
    except fal.FalClientHTTPError as error:
        seen["unknown_endpoint"] = error.status_code
    try:
        fal.SyncClient(key="wrong").submit(endpoint, body)
    except fal.FalClientHTTPError as error:
        seen["wrong_key"] = error.status_code

    seen["async_result"] = asyncio.run(subscribed(given, body))
    return seen


async def subscribed(given: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    client = fal.AsyncClient(key=given["key"])
    return await client.subscribe(given["endpoint"], body, with_logs=True, interval=0.05)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
