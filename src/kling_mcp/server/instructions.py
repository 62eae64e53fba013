"""What an assistant is told about the server as a whole: only what spans tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kling_mcp.media.optional import SHOWS_VIDEOS

if TYPE_CHECKING:
    from pathlib import Path

    from kling_mcp.settings import Settings

__all__ = ["instructions"]

_LONGEST_FOLDER: Final = 160


def instructions(settings: Settings, *, shows_videos: bool = SHOWS_VIDEOS) -> str:
    """Under 1,200 characters; the first 512, which some hosts cut at, are complete in themselves."""
    where = "are not saved" if settings.output_dir is None else f"are saved in {_named(settings.output_dir)}"
    continued = (
        "data: URIs, or kling://jobs/{job_id}/last-frame, which continues an earlier video"
        if shows_videos
        else "or data: URIs"
    )
    first = (
        "Kling videos on fal.ai. image_to_video, text_to_video and multi_shot_video spend money and answer with a "
        "job_id in seconds; the video takes 1.5 to 10 minutes. get_job with that job_id and wait_seconds 45 waits for "
        "it, and can be called again. estimate_cost gives the price first, for free. A paid call is not repeated: the "
        "same call gives the same job, and take 2 is a new charge."
    )
    rest = (
        f" Jobs go on without the conversation; list_jobs finds them again. Finished videos {where}. "
        f"Pictures are https URLs, paths in the allowed folders, {continued}. "
        "Prices are dated list prices, an estimate and a ceiling; above "
        f"${settings.confirm_above_usd} the user is asked, or max_cost_usd carries their agreement. A job in state "
        "unknown may have been charged: it is never sent again, and resolve_job settles it by the user's word. Local "
        "pictures become public links at fal.ai for 7 days."
    )
    text = first + rest
    return text if settings.backend == "fal" else f"Simulator: nothing is charged and no real video is made. {text}"


def _named(folder: Path) -> str:
    name = str(folder)
    return name if len(name) <= _LONGEST_FOLDER else "the folder that the operator chose"
