"""
What decodes videos and pictures: PyAV, Pillow and pi-heif.

They come with kling-mcp where the machine has wheels of them, and are imported on first use. Where they are missing,
nothing offers what needs them.
"""

from __future__ import annotations

from typing import Final

from kling_mcp.decoders import SHOWS_VIDEOS, installed, usable
from kling_mcp.errors import NotAvailable

__all__ = ["INSTALL_HINT", "SHOWS_VIDEOS", "installed", "need", "usable"]

INSTALL_HINT: Final = (
    "pip install av pillow pi-heif where kling-mcp is installed, or as the server's command: "
    "uvx --with av --with pillow --with pi-heif kling-mcp"
)


def need(*modules: str, purpose: str) -> None:
    """
    Make sure that *modules* are there and work.

    Raises:
        NotAvailable: They are not; the text says how to install them.
    """
    if not usable(*modules):
        raise NotAvailable(
            f"{purpose} needs PyAV and Pillow. They come with kling-mcp on most machines, but are not installed here.",
            f"The user can install them with: {INSTALL_HINT}",
        )
