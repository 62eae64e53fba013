"""How long a recording is by what its head says, whatever it is; PyAV is not needed for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kling_mcp.media import boxes, ebml, sound_files

if TYPE_CHECKING:
    from kling_mcp.media.measured import Bytes, Measured
    from kling_mcp.media.recording_probe import Format

__all__ = ["measure"]


def measure(file: Bytes, form: Format) -> Measured | None:
    """
    What the head (or the end, where that is the index) of *file* says; None where it says nothing certain.

    Raises:
        Unreadable: It is not put together as *form* is.
    """
    match form:
        case "mp4" | "mov" | "m4a":
            return boxes.measure(file)
        case "webm" | "mkv":
            return ebml.measure(file)
        case "mp3" | "wav" | "aac" | "ogg" | "flac":
            return sound_files.measure(file, form)
