"""Which decoders of pictures and videos this machine has: what needs one that is missing is offered nowhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

__all__ = ["SHOWS_VIDEOS", "installed"]


def installed(*modules: str) -> bool:
    """Whether every one of *modules* can be imported; none of them is."""
    return all(find_spec(module) is not None for module in modules)


SHOWS_VIDEOS: Final = installed("av", "PIL")
"""Whether pictures can be taken out of videos here: `view_video`, and last frames."""
