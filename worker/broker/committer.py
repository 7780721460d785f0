"""Stores events and ends of attempts: many share a round trip, and each is stored whole or not at all.

An end is never dropped, but it is refused if another process has the message now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

from worker.broker.commits import Commit
from worker.broker.sent import tell_taken
from worker.ground.logs import get_logger
from worker.history.storing import Pace, StoringThread
from worker.server.client import RedisClient
from worker.server.scripts import Argument, Script

logger = get_logger(__name__)

GATHER = 0.002
"""Seconds in which commits gather, unless a caller waits for them."""

GROUP = 128
"""The most messages that one script stores, because the server answers no one else meanwhile."""

GROUPS = 4
"""The most groups that share a round trip."""

MAX_COMMITS = 10_000
"""Commits that wait for the server before further ones are dropped."""

MAX_ENDS = 2_000
"""Commits that wait for the server before no further messages are taken."""

_COMMIT = Script("commit")
_LEAN_COMMIT = Script("commit", flags="allow-oom")


class Committer(StoringThread[Commit]):
    """Takes commits from any thread and stores them from one of its own.

    Args:
        token: The process's name at the server.
        client: The thread's own client.
        limits: The history's limits, as the scripts read them.
        ended: Called with each commit whose end is stored, refused, or not accepted.

    Attributes:
        refused: The number of ends that came too late.
    """

    def __init__(
        self, token: str, client: RedisClient, limits: Sequence[Argument], ended: Callable[[Commit], None]
    ) -> None:
        super().__init__("committer", token, lambda: client, Pace(GATHER, GROUP, GROUPS, MAX_COMMITS))
        self._limits = limits
        self._ended = ended
        self.refused = 0
        self.start()

    def wait_for_room(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds while `MAX_ENDS` ends wait; False if they still do: take no messages then."""
        return self.waiting.wait_until_below(MAX_ENDS, timeout)

    @property
    def ends_waiting(self) -> int:
        """The number of ends that are not stored yet."""
        return sum(commit.is_end for commit in self.waiting.not_stored())

    def refuse(self, message_id: str) -> None:
        """Counts an end that came too late."""
        self.refused += 1
        logger.warning("a message has gone to another process: its end is void", id=message_id)

    def send(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Commits groups. Each answer has the ids that other processes have now, and the ids not enqueued."""
        return _COMMIT.run_many(client, calls)

    def arguments(self, name: str, items: Sequence[Commit]) -> list[Argument]:
        """The arguments of a commit of this name."""
        return self._arguments(name, items, lean=False)

    def stored(self, items: Sequence[Commit], answer: tuple[list[bytes], list[bytes]]) -> None:
        """Reports the stored starts and ends, and the messages that were not enqueued with them."""
        refused, taken = answer
        for message_id in taken:
            tell_taken(message_id.decode())
        for commit in items:
            is_refused = bool(refused) and commit.message.message_id.encode() in refused
            if commit.started and not is_refused:
                commit.message.start_is_stored = True
            if commit.is_end:
                if is_refused:
                    self.refuse(commit.message.message_id)
                self._ended(commit)

    def give_up(self, items: Sequence[Commit], why: str) -> None:
        """Gives up commits; messages with an end among them will run again."""
        ends = [commit for commit in items if commit.is_end]
        logger.error(
            "not stored; where this is the end of an attempt, the message will run again",
            why=why,
            count=len(items),
            ends=len(ends),
            id=items[0].message.message_id,
        )
        for commit in ends:
            self._ended(commit)

    def do_without_memory(self, client: RedisClient, items: Sequence[Commit]) -> Sequence[Commit]:
        """Acknowledges successes without their events, and drops the events of running attempts; the rest waits."""
        lean = [commit for commit in items if commit.may_lose_events or not commit.is_end]
        if lean:
            try:
                answer = _LEAN_COMMIT.run(client, self._arguments(self.new_name(), lean, lean=True))
            except (redis.RedisError, OSError) as error:
                self.failed(error)
                return items
            self.drop(sum(len(commit.events) for commit in lean))
            self.stored(lean, answer)
        return [commit for commit in items if commit.is_end and not commit.may_lose_events]

    def _arguments(self, name: str, commits: Sequence[Commit], *, lean: bool) -> list[Argument]:
        return [name, int(lean), *self._limits, *(text for commit in commits for text in commit.texts())]
