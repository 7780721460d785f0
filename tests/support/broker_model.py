"""What the broker's scripts should do, in plain Python: where each message is, and what is known of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LANES = ("back", "high", "normal", "low")
FINAL = frozenset({"completed", "skipped", "dead", "cancelled"})
LISTED = frozenset({"failed", "lost", "cancelled"})

Stream = tuple[str, str]
"""A queue and a lane."""


@dataclass
class Message:
    """A message; what a process may hold of an earlier life of the same id is worth nothing."""

    id: str
    life: int
    queue: str
    lane: str
    actor: str
    payload: bytes
    state: str
    unique: str = ""
    seq: int = -1
    fence: int = 1
    attempts: int = 0
    starts: int = 0
    losses: int = 0
    subjects: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    died_of: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL


@dataclass
class Entry:
    """An entry of a stream, good for the delivery of its fence.

    `fence` is `None` where the entry names no message; `holder` is the process that was given it, `id` the server's.
    """

    message_id: str
    fence: int | None
    holder: str | None = None
    id: str = ""


@dataclass
class Taken:
    """What a process believes to hold."""

    id: str
    life: int
    stream: Stream
    entry: str
    fence: int
    attempt: int


@dataclass
class FollowUp:
    """A message enqueued with an end."""

    id: str
    queue: str
    lane: str
    actor: str
    payload: bytes
    later: int


@dataclass
class Step:
    """What a process has to say of an attempt."""

    taken: Taken
    started: bool
    lines: list[str]
    subject: str = ""
    outcome: str = ""
    kind: str = ""
    error: str = ""
    payload: bytes = b""
    later: int = -1
    unique: str = ""
    follow_ups: list[FollowUp] = field(default_factory=list)


@dataclass
class Audited:
    """An entry of the audit log."""

    by: str
    action: str
    target: str
    ids: list[str]


Given = tuple[Stream, Entry]
"""An entry that a process is given, and where it is."""


class Model:
    """Everything on the server."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.streams: dict[Stream, list[Entry]] = {}
        self.due: dict[str, float | None] = {}
        self.alive: dict[str, bool] = {}
        self.holders: dict[str, str] = {}
        self.counted: Counter[str] = Counter()
        self.paused: dict[str, str] = {}
        self.cancelling: set[str] = set()
        self.audit: list[Audited] = []
        self.lives = 0
        self.seq = 0

    def stream(self, queue: str, lane: str) -> list[Entry]:
        """The entries of a stream, oldest first."""
        return self.streams.setdefault((queue, lane), [])

    def current(self, entry: Entry) -> Message | None:
        """The message for whose newest delivery the entry is, if there is one."""
        message = self.messages.get(entry.message_id)
        return message if message is not None and entry.fence == message.fence else None

    def remove(self, message: Message) -> None:
        """Forgets a message, and what was asked of it."""
        del self.messages[message.id]
        self.cancelling.discard(message.id)

    # ------------------------------------------------------------------ what is enqueued

    def new(self, follow: FollowUp, unique: str = "") -> Message:
        self.lives += 1
        state = "delayed" if follow.later >= 0 else "queued"
        lane, actor, payload = follow.lane, follow.actor, follow.payload
        return Message(follow.id, self.lives, follow.queue, lane, actor, payload, state, unique)

    def create(self, messages: Iterable[Message], later: dict[str, int]) -> None:
        """Numbers them, and puts them where they are to be."""
        for one in messages:
            one.seq, self.seq = self.seq, self.seq + 1
            self.messages[one.id] = one
            self._place(one, later[one.id], one.lane)

    def enqueue(self, sent: list[tuple[FollowUp, str]]) -> list[str]:
        """Answers with the holders of unique keys."""
        answers: list[str] = []
        new: dict[str, Message] = {}
        later: dict[str, int] = {}
        for one, unique in sent:
            holder = self._holder(unique, one.id, new)
            answers.append(holder)
            if holder:
                continue
            known = self.messages.get(one.id)
            if known is None:
                if one.id not in new:
                    new[one.id] = self.new(one, unique)
                    later[one.id] = one.later
            elif known.is_final:
                known.unique = unique
                self.again(known, one)
        self.create(new.values(), later)
        return answers

    def _holder(self, unique: str, message_id: str, new: dict[str, Message]) -> str:
        if not unique:
            return ""
        holder = self.holders.get(unique)
        if holder is not None and holder != message_id:
            known = self.messages.get(holder) or new.get(holder)
            if known is not None and not known.is_final:
                return holder
        self.holders[unique] = message_id
        return ""

    def again(self, message: Message, sent: FollowUp) -> None:
        """One that has ended is enqueued again."""
        message.queue, message.lane, message.actor = sent.queue, sent.lane, sent.actor
        message.payload = sent.payload
        message.starts = message.losses = 0
        message.died_of = ""
        self.cancelling.discard(message.id)
        self.put_again(message, sent.later, message.lane)

    def put_again(self, message: Message, later: int, lane: str) -> None:
        message.fence += 1
        message.state = "delayed" if later >= 0 else "queued"
        self._place(message, later, lane)

    def _place(self, message: Message, later: int, lane: str) -> None:
        if later >= 0:
            self.due[message.id] = None
        else:
            self.stream(message.queue, lane).append(Entry(message.id, message.fence))

    # ------------------------------------------------------------------ what processes do

    def take(self, token: str, most: int, queues: list[str]) -> list[Given]:
        """Gives entries to a process, the most urgent first; those that are good for nothing any more are removed."""
        given: list[Given] = []
        for lane in LANES:
            for queue in queues:
                entries = self.stream(queue, lane)
                for entry in [one for one in entries if one.holder is None and queue not in self.paused]:
                    if len(given) == most:
                        break
                    if self._is_good(entry):
                        entry.holder = token
                        given.append(((queue, lane), entry))
                    else:
                        entries.remove(entry)
        return given

    def look(self, given: list[Given]) -> list[Given]:
        """Describes what a process was given: what is good for something, and not of a queue that is paused."""
        described = []
        for (queue, lane), entry in given:
            message = self.current(entry)
            if not self._is_good(entry):
                self.stream(queue, lane).remove(entry)
            elif message is not None and message.queue in self.paused:
                self.stream(queue, lane).remove(entry)
                self.put_again(message, -1, "back")
            else:
                described.append(((queue, lane), entry))
        return described

    def _is_good(self, entry: Entry) -> bool:
        return entry.fence is None or self.current(entry) is not None

    def commit(self, steps: list[Step]) -> list[str]:
        """Answers with the ids of those who had nothing to say any more."""
        refused: list[str] = []
        new: dict[str, Message] = {}
        later: dict[str, int] = {}
        for step in steps:
            message = self.messages.get(step.taken.id)
            held = message is not None and message.fence == step.taken.fence and not message.is_final
            if message is None or not held:
                refused.append(step.taken.id)
            else:
                self._note(message, step)
            if step.outcome:
                self._drop(step.taken)
                if message is not None and held:
                    self._end(message, step)
                    for one in step.follow_ups:
                        self._follow(one, new, later)
        self.create(new.values(), later)
        return refused

    def _follow(self, sent: FollowUp, new: dict[str, Message], later: dict[str, int]) -> None:
        known = self.messages.get(sent.id)
        if known is None:
            if sent.id not in new:
                new[sent.id] = self.new(sent)
                later[sent.id] = sent.later
        elif known.is_final:
            self.again(known, sent)

    def _note(self, message: Message, step: Step) -> None:
        if step.started and message.state != "running":
            message.state = "running"
            message.starts += 1
        message.attempts = max(message.attempts, step.taken.attempt)
        message.lines += step.lines
        if step.subject:
            message.subjects.add(step.subject)

    def _drop(self, taken: Taken) -> None:
        entries = self.streams.get(taken.stream, [])
        entries[:] = [one for one in entries if one.id != taken.entry]

    def _end(self, message: Message, step: Step) -> None:
        self.counted.update(f"{message.actor}\t{what}" for what in (step.kind, "d3", "q4"))
        if step.kind in LISTED:
            message.ended.add(step.kind)
        if step.error:
            message.errors.add(step.error)
        message.starts = message.losses = 0
        outcome = step.outcome
        if outcome in {"retry", "back", "dead"} and message.id in self.cancelling:
            outcome = "cancelled"
        if outcome == "dead":
            message.died_of = step.error or "unknown"
        if outcome == "retry":
            message.payload = step.payload
            self.put_again(message, step.later if step.later > 0 else -1, message.lane)
        elif outcome == "back":
            self.put_again(message, -1, "back")
        else:
            self._finish(message, outcome)
            if step.unique and self.holders.get(step.unique) == message.id:
                del self.holders[step.unique]

    def _finish(self, message: Message, state: str) -> None:
        message.state = state
        message.fence += 1

    def give_back(self, given: list[Taken]) -> None:
        for taken in given:
            held = bool([one for one in self.streams.get(taken.stream, []) if one.id == taken.entry])
            self._drop(taken)
            message = self.messages.get(taken.id)
            if held and message is not None and message.fence == taken.fence and not message.is_final:
                self.put_again(message, -1, "back")

    def bury(self, stream: Stream, entry: Entry, message_id: str, payload: bytes, line: str) -> None:
        self.streams[stream].remove(entry)
        self.lives += 1
        message = Message(message_id, self.lives, stream[0], "normal", "?", payload, "dead", fence=2)
        message.seq, self.seq = self.seq, self.seq + 1
        message.lines = [line]
        message.ended = {"failed"}
        message.errors = {"ValueError"}
        message.died_of = "ValueError"
        self.messages[message_id] = message

    # ------------------------------------------------------------------ what is done now and then

    def keep(self, token: str, most_starts: int, most: int, *, look_around: bool, now: float) -> tuple[bool, int]:
        """Answers whether the lease was held, and how many attempts were lost."""
        held = token in self.alive
        if held:
            self.alive[token] = True
        lost = self._reclaim(most_starts) if look_around or not all(self.alive.values()) else 0
        due = sorted((at, one) for one, at in self.due.items() if at is not None and at <= now)
        for _, message_id in due[:most]:
            del self.due[message_id]
            message = self.messages[message_id]
            message.state = "queued"
            self.stream(message.queue, message.lane).append(Entry(message_id, message.fence))
        return held, lost

    def _reclaim(self, most_starts: int) -> int:
        lost = 0
        for queue in {queue for queue, _ in self.streams}:
            for lane in LANES:
                entries = self.stream(queue, lane)
                dead = {one.holder for one in entries if one.holder is not None and not self.alive.get(one.holder)}
                for holder in sorted(one for one in dead if one is not None):
                    for entry in [one for one in entries if one.holder == holder]:
                        entries.remove(entry)
                        lost += self._take_over(queue, lane, entry, most_starts)
        self.alive = {token: alive for token, alive in self.alive.items() if alive}
        return lost

    def _take_over(self, queue: str, lane: str, entry: Entry, most_starts: int) -> int:
        if entry.message_id not in self.messages:
            self.stream(queue, lane).append(Entry(entry.message_id, entry.fence))
            return 0
        message = self.current(entry)
        if message is None:
            return 0
        message.losses += 1
        was_running = message.state == "running"
        if was_running:
            message.lines.append("lost")
            message.ended.add("lost")
            self.counted[f"{message.actor}\tlost"] += 1
        if was_running and message.id in self.cancelling:
            self._finish(message, "cancelled")
        elif message.starts >= most_starts:
            self._finish(message, "dead")
            message.died_of = "lost"
        else:
            self.put_again(message, -1, "back")
        return int(was_running)

    def flush(self, queue: str) -> None:
        for lane in LANES:
            for entry in self.stream(queue, lane):
                message = self.current(entry)
                if message is not None:
                    self.remove(message)
            self.stream(queue, lane).clear()
        for message_id in list(self.due):
            if self.messages[message_id].queue == queue:
                del self.due[message_id]
                self.remove(self.messages[message_id])

    # ------------------------------------------------------------------ what people do

    def replay(self, by: str, ids: Sequence[str], payload: bytes) -> list[str]:
        """Answers for each with an empty text, or with the state in which it is instead; so do the others."""
        return self._act(by, "replay", ids, ("dead",), payload)

    def purge(self, by: str, ids: Sequence[str]) -> list[str]:
        return self._act(by, "purge", ids, ("dead",))

    def run_now(self, by: str, ids: Sequence[str]) -> list[str]:
        return self._act(by, "run_now", ids, ("delayed",))

    def cancel(self, by: str, ids: Sequence[str]) -> list[str]:
        return self._act(by, "cancel", ids, ("queued", "delayed", "running"))

    def turn(self, by: str, action: str, queue: str) -> int:
        """Pauses a queue, or resumes it; answers whether that changed anything."""
        if (queue in self.paused) == (action == "pause"):
            return 0
        if action == "pause":
            self.paused[queue] = by
        else:
            del self.paused[queue]
        self.audit.append(Audited(by, action, queue, [queue]))
        return 1

    def _act(
        self, by: str, action: str, ids: Sequence[str], states: tuple[str, ...], payload: bytes = b""
    ) -> list[str]:
        answers, done = [], []
        for one in ids:
            message = self.messages.get(one)
            if message is None or message.state not in states:
                answers.append("unknown" if message is None else message.state)
                continue
            answers.append("")
            done.append(one)
            if action != "purge":
                message.lines.append(action)
            self._do(action, message, payload)
        if done:
            self.audit.append(Audited(by, action, " ".join(ids), done))
        return answers

    def _do(self, action: str, message: Message, payload: bytes) -> None:
        if action == "purge":
            self.remove(message)
        elif action == "replay":
            self.again(message, FollowUp(message.id, message.queue, message.lane, message.actor, payload, -1))
        elif action == "run_now":
            del self.due[message.id]
            message.state = "queued"
            self._place(message, -1, message.lane)
        elif message.state == "running":
            self.cancelling.add(message.id)
        else:
            self.due.pop(message.id, None)
            self._finish(message, "cancelled")
            unique = unique_of(message.payload)
            if unique and self.holders.get(unique) == message.id:
                del self.holders[unique]


def unique_of(payload: bytes) -> str:
    """The unique key that a message bears as an option."""
    return str(json.loads(payload).get("options", {}).get("unique", ""))
