"""The HTTP calls that this program makes to fal.ai, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kling_mcp.fal.http import FalHttp, MediaClient
from kling_mcp.fal.platform import FalPlatform
from kling_mcp.fal.queue import FalQueue
from kling_mcp.fal.storage import FalStorage

if TYPE_CHECKING:
    from types import TracebackType

    from kling_mcp.settings import FalHosts, Secret

__all__ = ["Fal"]


@dataclass(frozen=True, slots=True)
class Fal:
    """fal.ai as this program uses it: its queue, storage and platform with the key, and downloads without."""

    http: FalHttp
    queue: FalQueue
    storage: FalStorage
    platform: FalPlatform
    media: MediaClient

    @classmethod
    def at(cls, hosts: FalHosts, key: Secret | None, media_hosts: tuple[str, ...]) -> Self:
        """fal.ai at *hosts*. Nothing is connected to before the first call."""
        return cls.on(FalHttp(hosts, key), media_hosts)

    @classmethod
    def on(cls, http: FalHttp, media_hosts: tuple[str, ...]) -> Self:
        """The same over *http*, with its deadlines and its clock."""
        return cls(
            http,
            FalQueue(http),
            FalStorage(http, media_hosts),
            FalPlatform(http),
            MediaClient(media_hosts, deadline=http.deadlines.download),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.http.aclose()
        await self.media.aclose()
