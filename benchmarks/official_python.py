"""fal's own Python client as a program of its own: see official.py."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import fal_client.client as fal


def main(given: dict[str, Any]) -> None:
    """Do what was asked, and say when it was done."""
    client = fal.SyncClient(key=given["key"])
    error = None
    try:
        if given["what"] == "wait":
            client.subscribe(given["endpoint"], given["body"], with_logs=True)
        else:
            client.submit(given["endpoint"], given["body"])
    except fal.FalClientError as raised:
        error = repr(raised)
    print(json.dumps({"at": time.time(), "error": error}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
