"""Which decoders of pictures and videos this machine has: what needs one that is missing is offered nowhere."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final

__all__ = ["SHOWS_VIDEOS", "installed", "usable"]

_LIBRARY: Final = {"PIL": "PIL.Image"}
"""What loads the compiled part of a package, where that is not the package itself."""


def installed(*modules: str) -> bool:
    """Whether every one of *modules* can be imported; none of them is."""
    return all(find_spec(module) is not None for module in modules)


@cache
def usable(*modules: str) -> bool:
    """Whether every one of *modules* is there and works; they are imported."""
    if not installed(*modules):
        return False
    try:
        for module in modules:
            import_module(_LIBRARY.get(module, module))
    except (ImportError, OSError):  # a library of the system that it needs is missing, or is one of another machine
        return False
    return True


SHOWS_VIDEOS: Final = installed("av", "PIL")
"""Whether pictures can be taken out of videos here: `view_video`, and last frames."""
