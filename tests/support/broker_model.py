"""What the broker's scripts should do, in plain Python: where each message is, and what is known of it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

PRIORITIES = ("suspect", "lost", "back", "high", "normal", "low")
RUNNERS = ("thread", "loop", "loop.b")
"""Worker threads, the loop, and the place on the loop that one actor has for itself."""

FINAL = frozenset({"completed", "skipped", "dead", "cancelled"})
BARE = b"{}"
"""What is left of a message whose arguments are gone."""

LISTED = frozenset({"failed", "snoozed", "lost", "cancelled"})

Stream = tuple[str, str, str]
"""A queue, a priority and a runner."""


@dataclass
class Message:
    """A message; what a process may hold of an earlier life of the same id is worth nothing."""

    id: str
    life: int
    queue: str
    priority: str
    actor: str
    payload: bytes
    state: str
    unique: str = ""
    seq: int = -1
    fence: int = 1
    attempts: int = 0
    starts: int = 0
    losses: int = 0
    once: bool = False
    is_unknown: bool = False
    reasons: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    cause: str = ""
    until_start: bool = False
    next: Sending | None = None

    @property
    def is_bare(self) -> bool:
        """Whether it has ended, and its arguments are gone."""
        return self.payload == BARE

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    def waits_as(self, priority: str) -> str:
        """The priority with which it waits, where it would wait with this one if no process had died that had it."""
        return ("suspect" if self.losses > 1 else "lost") if self.losses else priority


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
    priority: str
    actor: str
    payload: bytes
    later: int
    subject: str = ""

    @property
    def subjects(self) -> set[str]:
        """The parts of its subject."""
        return set(self.subject.split("\x1e")) - {""}


@dataclass
class Sending:
    """A message that is sent; `fence` is that of its own attempt, if this sends it."""

    message: FollowUp
    unique: str = ""
    until_start: bool = False
    once: bool = False
    fence: int = 0


@dataclass
class Step:
    """What a process has to say of an attempt."""

    taken: Taken
    started: bool
    lines: list[str]
    once: bool = False
    subject: str = ""
    outcome: str = ""
    kind: str = ""
    error: str = ""
    payload: bytes = b""
    later: int = -1
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
        self.ending: set[str] = set()
        self.holders: dict[str, str] = {}
        self.seen: set[str] = set()
        self.counted: Counter[str] = Counter()
        self.paused: dict[str, str] = {}
        self.runners: dict[str, str] = {}
        self.said_by: dict[str, str] = {}
        self.misplaced: set[str] = set()
        self.cancelling: set[str] = set()
        self.begun_late: set[str] = set()
        self.audit: list[Audited] = []
        self.lives = 0
        self.seq = 0

    def stream(self, queue: str, priority: str, runner: str) -> list[Entry]:
        """The entries of a stream, oldest first."""
        return self.streams.setdefault((queue, priority, runner), [])

    def runner_of(self, actor: str) -> str:
        """What runs the messages of an actor."""
        return self.runners.get(actor, "thread")

    def join(self, token: str, queues: Iterable[str], actors: dict[str, str]) -> None:
        """A process begins, which has all runners and says which each of its actors has."""
        self.alive[token] = True
        for actor, runner in actors.items():
            self._set_runner(token, actor, runner)
        for place in itertools.product(queues, PRIORITIES, RUNNERS):
            self.stream(*place)

    def expect(self, actors: dict[str, str]) -> bool:
        """A sender says which runners it expects; that counts where no process lives, or has said it."""
        if any(self.alive.values()):
            return False
        self.runners = actors | self.runners
        return True

    def say_again(self, token: str, actors: dict[str, str]) -> None:
        """A process says again which runners its actors have: that counts where who said it last is gone."""
        for actor, runner in actors.items():
            if not self.alive.get(self.said_by.get(actor, "")):
                self._set_runner(token, actor, runner)

    def _set_runner(self, token: str, actor: str, runner: str) -> None:
        if runner != self.runner_of(actor):
            self.misplaced.add(self.runner_of(actor))
        self.runners[actor] = runner
        self.said_by[actor] = token

    def tell_end(self, token: str) -> None:
        """A process says that it was told to end, if it has a lease."""
        if token in self.alive:
            self.ending.add(token)

    def current(self, entry: Entry) -> Message | None:
        """The message for whose newest delivery the entry is, if there is one."""
        message = self.messages.get(entry.message_id)
        return message if message is not None and entry.fence == message.fence else None

    def remove(self, message: Message) -> None:
        """Forgets a message, and what was asked of it."""
        del self.messages[message.id]
        self._forget_cancel(message)

    def _forget_cancel(self, message: Message) -> None:
        self.cancelling.discard(message.id)
        self.begun_late.discard(message.id)

    # ------------------------------------------------------------------ what is enqueued

    def new(self, follow: FollowUp) -> Message:
        self.lives += 1
        state = "delayed" if follow.later >= 0 else "queued"
        priority, actor, payload = follow.priority, follow.actor, follow.payload
        return Message(
            follow.id, self.lives, follow.queue, priority, actor, payload, state, subjects=set(follow.subjects)
        )

    def create(self, messages: Iterable[Message], later: dict[str, int]) -> None:
        """Numbers them, and puts them where they are to be."""
        for one in messages:
            one.seq, self.seq = self.seq, self.seq + 1
            self.messages[one.id] = one
            self._place(one, later[one.id], one.priority)

    def enqueue(self, sent: list[Sending]) -> list[str]:
        """Answers for each with the id of the message for whose sake it was not enqueued, or an empty text."""
        new: dict[str, Message] = {}
        later: dict[str, int] = {}
        answers = [self._enqueue(one, new, later) for one in sent]
        self.create(new.values(), later)
        return answers

    def _enqueue(self, sending: Sending, new: dict[str, Message], later: dict[str, int]) -> str:
        sent = sending.message
        known = self.messages.get(sent.id)
        is_open = sent.id in new or (known is not None and not known.is_final)
        if is_open and known is not None and known.fence == sending.fence:
            if known.next is not None and known.next.fence == known.fence:
                return sent.id
            known.next = sending
            return ""
        was_seen = sent.id in self.seen
        if sending.once:
            self.seen.add(sent.id)
        if is_open or (sending.once and (was_seen or known is not None)):
            return sent.id
        if holder := self._holder(sending.unique, sent.id, new):
            return holder
        if known is None:
            known = new[sent.id] = self.new(sent)
            later[sent.id] = sent.later
        else:
            self.again(known, sent)
        known.unique, known.until_start = sending.unique, sending.until_start
        return ""

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
        message.queue, message.priority, message.actor = sent.queue, sent.priority, sent.actor
        message.payload = sent.payload
        message.subjects |= sent.subjects
        message.unique, message.until_start, message.is_unknown = "", False, False
        message.starts = message.losses = 0
        message.cause = ""
        self._forget_cancel(message)
        self.put_again(message, sent.later, message.priority)

    def _put_back(self, message: Message) -> None:
        """Before anything newer; one that somebody wants to end while it runs ends."""
        if message.state == "running" and message.id in self.cancelling:
            self._finish(message, "cancelled")
        else:
            self.put_again(message, -1, "back")

    def put_again(self, message: Message, later: int, priority: str) -> None:
        message.fence += 1
        message.state = "delayed" if later >= 0 else "queued"
        self._place(message, later, priority)

    def _place(self, message: Message, later: int, priority: str) -> None:
        if later >= 0:
            self.due[message.id] = None
        else:
            self._add_entry(message, message.waits_as(priority))

    def _add_entry(self, message: Message, priority: str) -> None:
        place = message.queue, priority, self.runner_of(message.actor)
        self.stream(*place).append(Entry(message.id, message.fence))

    def _move_if_misplaced(self, stream: Stream, entry: Entry) -> bool:
        message = self.current(entry)
        if message is None or stream[2] == self.runner_of(message.actor):
            return False
        self.stream(*stream).remove(entry)
        self._add_entry(message, stream[1])
        return True

    # ------------------------------------------------------------------ what processes do

    def take(self, token: str, suspects: tuple[int, int], rooms: dict[str, int], queues: list[str]) -> list[Given]:
        """Gives entries to a process, the most urgent first; those that are good for nothing any more are removed."""
        given: list[Given] = []
        left = dict(rooms)
        allowed = dict(zip(("suspect", "lost"), suspects, strict=True))
        for stream in itertools.product(PRIORITIES, queues, left):
            priority, queue, runner = stream
            entries = self.stream(queue, priority, runner)
            for entry in [one for one in entries if one.holder is None and queue not in self.paused]:
                if not left[runner] or not allowed.get(priority, 1):
                    break
                if not self._is_good(entry):
                    entries.remove(entry)
                elif not self._move_if_misplaced((queue, priority, runner), entry):
                    entry.holder = token
                    given.append(((queue, priority, runner), entry))
                    left[runner] -= 1
                    if priority == "suspect":
                        allowed = dict.fromkeys(allowed, 0)
                    elif priority == "lost":
                        allowed["lost"] -= 1
        return given

    def look(self, given: list[Given]) -> list[Given]:
        """Describes what a process was given: what is good for something, and not of a queue that is paused."""
        described = []
        for stream, entry in given:
            message = self.current(entry)
            if not self._is_good(entry):
                self.stream(*stream).remove(entry)
            elif self._move_if_misplaced(stream, entry):
                continue
            elif message is not None and message.queue in self.paused:
                self.stream(*stream).remove(entry)
                self._put_back(message)
            else:
                described.append((stream, entry))
        return described

    def _is_good(self, entry: Entry) -> bool:
        return entry.fence is None or self.current(entry) is not None

    def commit(self, steps: list[Step]) -> tuple[list[str], list[str]]:
        """Answers with the ids of those who had nothing to say any more, and of what was not enqueued."""
        refused: list[str] = []
        taken: list[str] = []
        new: dict[str, Message] = {}
        later: dict[str, int] = {}
        for step in steps:
            message = self.messages.get(step.taken.id)
            late = message is not None and self._ran_as_cancelled(message, step)
            held = late or (message is not None and message.fence == step.taken.fence and not message.is_final)
            if message is None or not held:
                refused.append(step.taken.id)
            else:
                self._note(message, step, late=late)
            if step.outcome:
                self._drop(step.taken)
                if message is not None and held:
                    self._end(message, step)
                    for one in step.follow_ups:
                        taken += self._follow(one, new, later)
        self.create(new.values(), later)
        return refused, taken

    def _follow(self, sent: FollowUp, new: dict[str, Message], later: dict[str, int]) -> list[str]:
        """Answers with its id if that is taken."""
        known = self.messages.get(sent.id)
        if sent.id in new or (known is not None and not known.is_final):
            return [sent.id]
        if known is None:
            new[sent.id] = self.new(sent)
            later[sent.id] = sent.later
        else:
            self.again(known, sent)
        return []

    def _ran_as_cancelled(self, message: Message, step: Step) -> bool:
        """Whether it was cancelled after the attempt had begun, and before the server knew that."""
        is_new = step.started and message.attempts < step.taken.attempt
        return (
            message.state == "cancelled"
            and message.fence == step.taken.fence + 1
            and (is_new or message.id in self.begun_late)
        )

    def _note(self, message: Message, step: Step, *, late: bool) -> None:
        if late:
            self.cancelling.add(message.id)
            self.begun_late.add(message.id)
        elif step.started and message.state != "running":
            message.state = "running"
            message.starts += 1
            if message.until_start:
                self._free(message)
            message.once = step.once
            message.is_unknown = False
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
            message.errors.update(step.error.split(", "))
        message.starts = message.losses = 0
        outcome = step.outcome
        if message.state == "cancelled":
            self._forget_cancel(message)
            if outcome not in {"completed", "skipped"}:
                return
        if outcome in {"retry", "back", "dead"} and message.id in self.cancelling:
            outcome = "cancelled"
        if outcome == "dead":
            message.cause = step.error.partition(", ")[0] or "unknown"
        if outcome == "retry":
            message.payload = step.payload
            self.put_again(message, step.later if step.later > 0 else -1, message.priority)
        elif outcome == "back":
            self.put_again(message, -1, "back")
        else:
            self._finish(message, outcome)

    def _finish(self, message: Message, state: str) -> None:
        """It ends; if its own attempt has enqueued it, and nobody has cancelled it, it is enqueued again."""
        message.state = state
        message.fence += 1
        self._free(message)
        following, message.next = message.next, None
        if following is not None and state != "cancelled" and message.id not in self.cancelling:
            sent = following.message
            self.again(message, replace(sent, later=sent.later if sent.later > 0 else -1))

    def _free(self, message: Message) -> None:
        unique = unique_of(message.payload)
        if unique and self.holders.get(unique) == message.id:
            del self.holders[unique]
            message.unique = ""

    def give_back(self, given: list[Taken]) -> None:
        for taken in given:
            held = bool([one for one in self.streams.get(taken.stream, []) if one.id == taken.entry])
            self._drop(taken)
            message = self.messages.get(taken.id)
            if held and message is not None and message.fence == taken.fence and not message.is_final:
                self._put_back(message)

    def set_aside(self, given: list[Taken], reason: str, *, may_wait: bool) -> list[str]:
        """Answers for each with the state that it has then, or with an empty text."""
        answers = []
        for taken in given:
            held = bool([one for one in self.streams.get(taken.stream, []) if one.id == taken.entry])
            self._drop(taken)
            message = self.messages.get(taken.id)
            if not held or message is None or message.fence != taken.fence or message.is_final:
                answers.append("")
                continue
            if may_wait:
                self._let_wait(message, reason)
            else:
                self._bury_unknown(message)
            answers.append(message.state)
        return answers

    def _let_wait(self, message: Message, reason: str) -> None:
        if reason not in message.reasons:
            message.reasons.add(reason)
            message.lines.append(reason)
        if message.state == "running" and message.id in self.cancelling:
            message.is_unknown = True
            self._finish(message, "cancelled")
            return
        message.is_unknown = True
        self.put_again(message, 0, message.priority)

    def _bury_unknown(self, message: Message) -> None:
        message.lines.append("dead letter")
        message.is_unknown = False
        message.ended.add("failed")
        message.errors.add("worker.errors.UnknownActor")
        self.counted[f"{message.actor}\tfailed"] += 1
        if message.state == "running" and message.id in self.cancelling:
            self._finish(message, "cancelled")
            return
        message.cause = "worker.errors.UnknownActor"
        self._finish(message, "dead")

    def bury(self, stream: Stream, entry: Entry, message_id: str, payload: bytes, line: str) -> None:
        self.streams[stream].remove(entry)
        self.lives += 1
        message = Message(message_id, self.lives, stream[0], "normal", "?", payload, "dead")
        message.seq, self.seq = self.seq, self.seq + 1
        message.lines = [line]
        message.ended = {"failed"}
        message.errors = {"ValueError"}
        message.cause = "ValueError"
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
            self._add_entry(message, message.waits_as(message.priority))
        if look_around:
            self._move_misplaced()
        return held, lost

    def _move_misplaced(self) -> None:
        for runner in self.misplaced:
            for stream in [one for one in self.streams if one[2] == runner]:
                for entry in [one for one in self.streams[stream] if one.holder is None]:
                    self._move_if_misplaced(stream, entry)
        self.misplaced.clear()

    def _reclaim(self, most_starts: int) -> int:
        lost = 0
        certain = self._certainly_guilty(most_starts)
        for stream in itertools.product({one[0] for one in self.streams}, PRIORITIES, RUNNERS):
            entries = self.stream(*stream)
            dead = {one.holder for one in entries if one.holder is not None and not self.alive.get(one.holder)}
            for holder in sorted(one for one in dead if one is not None):
                for entry in [one for one in entries if one.holder == holder]:
                    entries.remove(entry)
                    lost += self._take_over(stream, entry, certain, was_told=holder in self.ending)
        self.alive = {token: alive for token, alive in self.alive.items() if alive}
        self.ending &= self.alive.keys()
        return lost

    def _certainly_guilty(self, most_starts: int) -> set[str]:
        """The messages that ran in a process that is gone, and of which no other can have taken it down."""
        held: dict[str, list[Message]] = {}
        for entry in itertools.chain.from_iterable(self.streams.values()):
            message = self.current(entry)
            if message is not None and entry.holder is not None and not self.alive.get(entry.holder):
                held.setdefault(entry.holder, []).append(message)
        certain = set()
        for messages in held.values():
            ran = [one for one in messages if one.state == "running"]
            doubtful = [one for one in ran if one.losses]
            alone = doubtful if len(doubtful) == 1 else ran if len(messages) == 1 else []
            certain |= {one.id for one in alone if one.starts >= most_starts}
        return certain

    def _take_over(self, stream: Stream, entry: Entry, certain: set[str], *, was_told: bool) -> int:
        if entry.message_id not in self.messages:
            self.stream(*stream).append(Entry(entry.message_id, entry.fence))
            return 0
        message = self.current(entry)
        if message is None:
            return self._take_over_cancelled(entry, was_told=was_told)
        was_running = message.state == "running"
        message.losses += not was_told
        is_last = (was_running and message.once) or (not was_told and message.id in certain)
        if was_running:
            message.starts -= was_told
            self._tell_gone(message, was_told=was_told)
        if was_running and message.id in self.cancelling:
            self._finish(message, "cancelled")
        elif is_last:
            self._finish(message, "dead")
            message.cause = "lost"
        else:
            self.put_again(message, -1, "back")
        return int(was_running and not was_told)

    def _take_over_cancelled(self, entry: Entry, *, was_told: bool) -> int:
        """One that was cancelled as its attempt began, and whose end nobody has told."""
        message = self.messages[entry.message_id]
        told = message.state == "cancelled" and message.fence - 1 == entry.fence and message.id in self.begun_late
        if told:
            self._forget_cancel(message)
            self._tell_gone(message, was_told=was_told)
        return int(told and not was_told)

    def _tell_gone(self, message: Message, *, was_told: bool) -> None:
        """The attempt's process is gone: it died, or was told to end before."""
        kind = "cancelled" if was_told else "lost"
        message.lines.append(kind)
        message.ended.add(kind)
        self.counted[f"{message.actor}\t{kind}"] += 1

    def flush(self, queue: str) -> None:
        for stream in itertools.product([queue], PRIORITIES, RUNNERS):
            for entry in self.stream(*stream):
                message = self.current(entry)
                if message is not None:
                    self.remove(message)
            self.stream(*stream).clear()
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
            self.again(message, FollowUp(message.id, message.queue, message.priority, message.actor, payload, -1))
        elif action == "run_now":
            del self.due[message.id]
            message.state = "queued"
            self._place(message, -1, message.priority)
        elif message.state == "running":
            self.cancelling.add(message.id)
        else:
            self.due.pop(message.id, None)
            self._finish(message, "cancelled")


def unique_of(payload: bytes) -> str:
    """The unique key that a message bears as an option."""
    return str(json.loads(payload).get("options", {}).get("unique", ""))
