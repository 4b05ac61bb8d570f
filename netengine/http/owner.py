"""What a connection needs of its server. No code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from netengine.http.messages import Answer, Request

if TYPE_CHECKING:
    from netengine.http.connection import Connection


class Owner(Protocol):
    """A server, or what plays one."""

    @property
    def app(self) -> object:
        """For the handlers."""

    @property
    def common(self) -> bytes:
        """The headers of every answer."""

    @property
    def head_limit(self) -> int:
        """Bytes of a request's first line and headers."""

    @property
    def stopping(self) -> bool:
        """Whether this request is the last of its connection."""

    async def answer(self, request: Request) -> Answer:
        """Answer one request."""

    def refused(self, remote: Mapping[str, str] | None, sock: Any, why: str) -> None:
        """What came is no request."""

    def opened(self, connection: Connection) -> None:
        """From now on it is the server's to end."""

    def closed(self, connection: Connection) -> None:
        """It has ended, and nothing of it is under way any more."""
