"""Questions to agents that somebody waits for: `inspect`, and its answer."""

import asyncio
from itertools import count
from typing import Final

from farshore.conversation import Conversation
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import Transient
from farshore_schema.messages import Inspect, Inspected
from farshore_schema.roles import Side

INSPECT_SECONDS: Final = 30.0  # bound of one look at two endpoints
QUESTIONS_MAX: Final = 64  # asked and not answered yet
BUSY_RETRY_SECONDS: Final = 5.0


class Questions:
    """What was asked and is not answered yet."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Conversation, asyncio.Future[Inspected]]] = {}
        self._numbers = count(1)

    async def inspect(
        self, conversation: Conversation | None, document: MySQLPair, own: Side, existing: bool, timeout_seconds: float
    ) -> Inspected:
        """Ask an agent to look at both endpoints. Raises Transient: agent_unreachable, timeout."""
        site = (document.site_a if own == "a" else document.site_b).site
        hint = f"start the agent of {site}: farshore-agent run"
        if conversation is None:
            raise Transient("agent_unreachable", f"no agent serves {site}", hint=hint)
        request = f"inspect-{next(self._numbers)}"
        answer: asyncio.Future[Inspected] = asyncio.get_running_loop().create_future()
        question = Inspect(request=request, document=document, own=own, existing=existing)
        if len(self._open) >= QUESTIONS_MAX or not conversation.say(question):
            message = f"too many questions wait for the agent of {site}"
            raise Transient("timeout", message, retry_seconds=BUSY_RETRY_SECONDS)
        self._open[request] = (conversation, answer)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError as error:
            message = f"the agent of {site} did not answer within {timeout_seconds:.0f} s"
            raise Transient("timeout", message, hint=hint) from error
        finally:
            self._open.pop(request, None)

    def answered(self, conversation: Conversation, answer: Inspected) -> None:
        """Take an answer; one that nobody waits for, or that another agent gives, is dropped."""
        asked = self._open.get(answer.request)
        if asked is not None and asked[0] is conversation and not asked[1].done():
            asked[1].set_result(answer)

    def gone(self, conversation: Conversation) -> None:
        """Whoever waits for this agent waits in vain."""
        for asked, answer in self._open.values():
            if asked is conversation and not answer.done():
                answer.set_exception(Transient("agent_unreachable", "the agent went away before it answered"))
