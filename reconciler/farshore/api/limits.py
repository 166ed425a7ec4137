"""Refuses bodies over the limit, whether or not the client says how long they are, before anything reads them whole."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farshore.api.errors import answer
from farshore_schema.errors import FarshoreError, Permanent


class BodyLimit:
    """ASGI middleware: at most so many bytes of body."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app, self._max = app, bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max:
            await answer(self._refusal())(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max:
                refusal = self._refusal()
                raise HTTPException(refusal.status, refusal.message)
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> FarshoreError:
        return Permanent("body_too_large", f"the body is over {self._max} bytes", hint="send less at once")
