"""
The least that a paid call can be: one line in, one POST out.

Reads the address and the body of each request from a line of standard input and
posts it on a connection of its own, as the server does.
"""

from __future__ import annotations

import json
import sys

import httpx


def main() -> None:
    """Post until standard input ends."""
    with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False) as client:
        for line in sys.stdin:
            url, key, body = json.loads(line)
            client.post(url, json=body, headers={"Authorization": f"Key {key}"}).raise_for_status()
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
