"""The optional part: PyAV and Pillow, loaded on use, and what to say when they are not there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from kling_mcp.errors import NotAvailable

__all__ = ["INSTALL_HINT", "installed", "need"]

INSTALL_HINT: Final = (
    'pip install "kling-mcp[media]", or as the server\'s command: uvx --from "kling-mcp[media]" kling-mcp'
)


def installed(*modules: str) -> bool:
    """Whether every one of *modules* can be imported; none of them is."""
    return all(find_spec(module) is not None for module in modules)


def need(*modules: str, purpose: str) -> None:
    """
    Make sure that the optional part is there.

    Raises:
        NotAvailable: It is not; the text says how to install it.
    """
    if not installed(*modules):
        raise NotAvailable(
            f"{purpose} needs an optional part that is not installed (PyAV and Pillow).",
            f"The user can install it with: {INSTALL_HINT}",
        )
