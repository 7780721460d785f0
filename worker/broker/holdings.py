"""The messages that this process has taken and not yet ended, in a room for each of its runners."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from worker.broker.room import Room, Runner
from worker.broker.suspects import Suspects
from worker.broker.taken import TakenMessage
from worker.threads.doorbell import Doorbell
from worker.threads.os_threads import new_lock

MOMENT = 0.02
"""Seconds for which runners with room wait for one that will have some in a moment."""

CANCELLED_KEPT = 10_000
"""Cancelled deliveries that are remembered, because one of them may be in an answer that is not read yet."""


class Holdings:
    """The account of taken messages. Messages that no runner has begun wait at the runner, and nowhere else.

    Args:
        runners: The runners of this process by their names.
        admit: Called with each message: names its runner, or returns False if it must not run.

    Attributes:
        rooms: The room of each runner.
        suspects: Those of the messages that dead processes had.
    """

    def __init__(self, runners: Mapping[str, Runner], admit: Callable[[TakenMessage], bool]) -> None:
        self.rooms = {name: Room(runner) for name, runner in runners.items()}
        self.suspects = Suspects()
        self._admit = admit
        self._lock = new_lock()
        self._room_made = Doorbell()
        self._queues: list[str] = []
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        self._entries: set[tuple[str, str]] = set()
        self._open = True

    @property
    def queues(self) -> list[str]:
        """The queues whose messages are taken."""
        return list(self._queues)

    def is_open(self) -> bool:
        """Whether messages are still taken."""
        return self._open

    def open_queue(self, queue: str) -> bool:
        """Adds a queue to those that are read; False if it is one of them already."""
        with self._lock:
            if queue in self._queues:
                return False
            self._queues.append(queue)
            return True

    def put(self, messages: Sequence[TakenMessage]) -> None:
        """Adds taken messages, which wait for their runners."""
        admitted = []
        for message in messages:
            self._entries.add((message.stream, message.entry))
            if self._admit(message):
                if message.losses > 0:
                    self.suspects.add(message)
                # Where the server was asked for it: else this process would never have enough of that.
                self.rooms[message.taken_for].add(message)
                admitted.append(message)
        self.put_back(admitted)

    def put_back(self, messages: Sequence[TakenMessage]) -> None:
        """Puts messages of `take_waiting` back, to wait again."""
        for name, room in self.rooms.items():
            own = [message for message in messages if message.runner == name]
            if own:
                room.runner.put_all(own)

    def holds(self, message_id: str) -> TakenMessage | None:
        """The message of this id, or None if this process does not hold it."""
        found = (room.get(message_id) for room in self.rooms.values())
        return next((message for message in found if message is not None), None)

    def cancel(self, message_id: str, fence: int) -> None:
        """Records the cancel of a delivery, also if the message is still on its way here."""
        self._cancelled[message_id] = fence
        if len(self._cancelled) > CANCELLED_KEPT:
            self._cancelled.popitem(last=False)

    def is_cancelled(self, message: TakenMessage) -> bool:
        """Whether this delivery of the message was cancelled."""
        return self._cancelled.get(message.message_id) == message.fence

    def __len__(self) -> int:
        return sum(len(room) for room in self.rooms.values())

    def ended(self, message: TakenMessage) -> None:
        """Records the end of the message's attempt, which makes room for another message."""
        if message.ended:
            return
        message.ended = True
        if message.losses > 0:
            self.suspects.remove(message)
        room = self.rooms[message.taken_for]
        room.remove(message)
        message.run = None  # which has the message: only the collector could free them
        # The room is there (docs/explanation/waking-without-a-lock.md): is it waited for?
        if self._room_made.asleep and room.free() > 0:
            self._room_made.ring()

    def stored(self, message: TakenMessage) -> None:
        """Records that the server has stored the message's end."""
        self._entries.discard((message.stream, message.entry))

    def knows(self, stream: str, entry: str) -> bool:
        """Whether this process knows that it has the entry."""
        return (stream, entry) in self._entries

    def wait_for_room(self, timeout: float) -> dict[str, int]:
        """The number of messages that may be taken now, for each runner with room; waits at most `timeout` seconds."""
        self._measure()
        self._room_made.sleep(unless=lambda: self._free() or not self._open, timeout=timeout)
        # The others are asked for together with a quick one: to ask twice would keep that waiting for the server.
        self._room_made.sleep(unless=lambda: not self._is_early() or not self._open, timeout=MOMENT)
        self._measure()
        return self._free()

    def surplus(self) -> list[TakenMessage]:
        """Takes out the least urgent of the waiting messages, if too many are held: attempts take longer now."""
        surplus = []
        for room in self.rooms.values():
            if more := room.surplus():
                # No newer message may stay in front of those that are put back.
                waiting = room.runner.drain()
                kept = max(0, len(waiting) - more)
                room.runner.put_all(waiting[:kept])
                surplus += waiting[kept:]
        return surplus

    def is_ahead(self) -> bool:
        """Whether more messages are held than a runner runs."""
        return any(room.is_ahead() for room in self.rooms.values())

    def take_waiting(self) -> list[TakenMessage]:
        """Takes back the messages that wait for a runner, the most urgent of each runner first."""
        return [message for room in self.rooms.values() for message in room.runner.drain()]

    def close(self) -> None:
        """Ends the taking."""
        self._open = False
        self._room_made.ring()

    def forget(self) -> None:
        """Drops the waiting messages, which other processes have now."""
        for message in self.take_waiting():
            self.rooms[message.taken_for].drop(message)
        self._entries.clear()
        self.suspects.clear()

    def _is_early(self) -> bool:
        return bool(self._free()) and any(room.has_soon() for room in self.rooms.values())

    def _free(self) -> dict[str, int]:
        return {name: free for name, room in self.rooms.items() if (free := room.free())}

    def _measure(self) -> None:
        for room in self.rooms.values():
            room.measure()
