"""
What fast means, measured beside something.

`uv run python -m benchmarks` prints each figure beside what it is measured
against in the same run: a bare server on the same SDK, a bare HTTP request, fal's
own clients. Nothing here is a test: a figure is read by a person, with the
machine it came from.
"""
