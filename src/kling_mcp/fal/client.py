"""fal.ai as this program uses it: the queue, the storage, the platform, and the videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kling_mcp.fal.http import FalHttp
from kling_mcp.fal.media_client import MediaClient
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.fal.public_files import PublicFiles
from kling_mcp.fal.queue import FalQueue
from kling_mcp.fal.storage import FalStorage

if TYPE_CHECKING:
    from kling_mcp.settings import Settings

__all__ = ["Fal"]


class Fal:
    """
    Every call to fal.ai that *settings* allow.

    The key goes to the three hosts of the settings; `media` and `public` have none.
    """

    def __init__(self, settings: Settings, http: FalHttp | None = None) -> None:
        self._http = http or FalHttp(settings.hosts, settings.fal_key)
        self.queue = FalQueue(self._http)
        self.storage = FalStorage(self._http, settings.media_hosts)
        self.platform = FalPlatform(self._http)
        self.media = MediaClient(settings.media_hosts)
        self.public = PublicFiles(settings.media_hosts)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        await self.media.aclose()
        await self.public.aclose()
