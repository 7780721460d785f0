"""The broker's scripts against a model, under random interleavings of what processes do, and of what befalls them."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.broker_model import (
    BARE,
    FINAL,
    LISTED,
    PRIORITIES,
    RUNNERS,
    Entry,
    FollowUp,
    Given,
    Message,
    Model,
    Sending,
    Step,
    Stream,
    Taken,
)
from tests.support.examples import examples
from worker.broker import committer, heartbeat, reader, sending, session, streams
from worker.broker.commits import End, write_commit
from worker.broker.envelope import Parcel
from worker.history import overview, query
from worker.history.events import ErrorInfo, State, StatusEvent, UsualEvent
from worker.history.filters import MessageFilter
from worker.history.lines import to_line, usual_line
from worker.history.states import MARKS
from worker.operations import actions
from worker.server.client import RedisClient
from worker.server.connection import connect, streams_in
from worker.server.embedded import EmbeddedServer
from worker.server.scripts import Argument, Script
from worker.settings import Settings

SEGMENT = 4
"""Messages in a segment of the indexes, instead of thousands: so that a few steps fill many."""

FEW = {"LOOKS": 9, "RARE": 2, "MANY_IDS": 1}
"""Where a search changes its ways, or answers in parts, instead of at thousands."""

BYTES_AROUND = 200
"""Bytes that are counted of a message beside those of its record."""

SETTLED = ("completed", "skipped", "cancelled")

MOST_STARTS = 2
HOUR_MS = 3_600_000
SOON_MS = 50
AGE_MS = HOUR_MS
DAY_S = 86_400
DELAYS = (0, HOUR_MS, *(seconds * 1_000 for seconds in (5, 10, 20, 40, 60)))

QUEUES = ["q", "r"]
IDS = [f"m{number}" for number in range(14)]
KEYS = ["k", "l"]
TOKENS = [f"host:{number}:token" for number in range(6)]

_DUMP = """
local function all(pattern)
  local keys = call('KEYS', pattern)
  table.sort(keys)
  return keys
end
local found = { {}, {}, {}, {}, {}, {} }
for _, key in ipairs(all('{worker}:m:*')) do
  table.insert(found[1], { key, call('GET', key) })
end
for _, key in ipairs(all('{worker}:q:*')) do
  table.insert(found[2], { key, call('XRANGE', key, '-', '+'), call('XPENDING', key, 'workers', '-', '+', 1000) })
end
for _, key in ipairs(all('{worker}:x:*')) do
  if call('TYPE', key).ok == 'list' then
    table.insert(found[3], { key, call('LRANGE', key, 0, -1) })
  else
    table.insert(found[3], { key, call('GET', key) })
  end
end
for _, key in ipairs(all('{worker}:s:*')) do
  table.insert(found[4], { key, call('ZRANGE', key, 0, -1, 'WITHSCORES') })
end
for _, key in ipairs(all('{worker}:w:*')) do
  table.insert(found[5], call('HGETALL', key))
end
for _, key in ipairs(all('{worker}:u:*')) do
  table.insert(found[6], { key, call('GET', key) })
end
table.insert(found, all('{worker}:cancel:*'))
table.insert(found, call('XRANGE', '{worker}:audit', '-', '+'))
for _, key in ipairs({ '{worker}:depths', '{worker}:changed', '{worker}:paused' }) do
  table.insert(found, call('HGETALL', key))
end
table.insert(found, call('ZRANGE', '{worker}:due', 0, -1, 'WITHSCORES'))
table.insert(found, call('HGETALL', '{worker}:states'))
table.insert(found, call('HGETALL', '{worker}:kept'))
table.insert(found, call('ZRANGE', '{worker}:segments', 0, -1))
table.insert(found, all('{worker}:seen:*'))
table.insert(found, call('ZRANGE', '{worker}:leases', 0, -1, 'WITHSCORES'))
table.insert(found, call('SMEMBERS', '{worker}:ending'))
table.insert(found, call('HGETALL', '{worker}:runners'))
table.insert(found, call('HGETALL', '{worker}:runners-said-by'))
table.insert(found, call('HGETALL', '{worker}:bytes'))
table.insert(found, now)
return found
"""


def small(script: Script, more: str = "") -> Script:
    """The same script with small segments."""
    made = copy.copy(script)
    made._text = made._text.replace("4096", str(SEGMENT)) + more
    for name, few in FEW.items():
        made._text = re.sub(rf"local {name} = \d+", f"local {name} = {few}", made._text)
    made._hash = hashlib.sha1(made._text.encode()).hexdigest()
    return made


ENQUEUE = small(sending._ENQUEUE)
ENQUEUE_NEW = small(sending._ENQUEUE_NEW)
FLUSH = small(streams._FLUSH)
WAITING = small(streams._WAITING)
COMMIT = small(committer._COMMIT)
EXPECT = small(sending._EXPECT)
GIVE_BACK = small(session._GIVE_BACK)
SET_ASIDE = small(session._SET_ASIDE)
TAKE = small(reader._TAKE)
LOOK = small(reader._LOOK)
BURY = small(reader._BURY)
JOIN = small(heartbeat._JOIN)
KEEP = small(heartbeat._KEEP)
LEAVE = small(heartbeat._LEAVE)
FIND = small(query._FIND)
DEATHS = small(query._DEATHS)
DESCRIBE_QUEUES = small(overview._QUEUES)
REPLAY = small(actions._REPLAY)
PURGE = small(actions._PURGE)
CANCEL = small(actions._CANCEL)
RUN_NOW = small(actions._RUN_NOW)
PAUSE = small(actions._PAUSE)
DUMP = small(Script("records"), _DUMP)


class Stored:
    """What the server holds, read in one step."""

    def __init__(self, client: RedisClient) -> None:
        messages, streams_, maps, subjects, windows, unique, *others = DUMP.run(client, [])
        cancelling, audit, depths, changed, paused, due, states, kept, segments, seen, *others = others
        leases, ending, runners, said_by, counted_bytes, now = others
        self.messages: dict[str, tuple[list[str], bytes, list[str]]] = {}
        self.bytes: Counter[str] = Counter()
        for key, record in messages:
            head, payload, lines = record.split(b"\n", 2)
            state = head.split(b"\t")[1].decode()
            if state in FINAL:
                self.bytes[state] += len(record) + BYTES_AROUND
            self.messages[_after(key, "{worker}:m:")] = (
                head.decode().split("\t"),
                payload,
                lines.decode().splitlines(),
            )
        self.streams: dict[Stream, tuple[list[tuple[str, str, int | None]], dict[str, str]]] = {}
        for key, entries, pending in streams_:
            named = [(entry.decode(), fields[1].decode(), _fence(fields)) for entry, fields in entries]
            self.streams[_stream_of(key)] = named, {one[0].decode(): one[1].decode() for one in pending}
        self.ids: dict[int, list[str]] = {}
        self.marks: dict[tuple[int, str], set[int]] = {}
        for key, value in maps:
            segment, _, name = _after(key, "{worker}:x:").partition(":")
            if isinstance(value, list):
                self.ids[int(segment)] = [one.decode() for one in value]
            else:
                self.marks[int(segment), name] = {
                    number for number in range(len(value) * 8) if value[number // 8] >> (7 - number % 8) & 1
                }
        self.subjects = {
            _after(key, "{worker}:s:"): {name.decode(): int(seq) for name, seq in _couples(members)}
            for key, members in subjects
        }
        self.counted: Counter[str] = Counter()
        for window in windows:
            for name, number in _couples(window):
                self.counted[name.decode()] += int(number)
        self.unique = {_after(key, "{worker}:u:"): value.decode() for key, value in unique}
        self.cancelling = {_after(key, "{worker}:cancel:") for key in cancelling}
        self.audit = [dict(_texts(fields)) for _, fields in audit]
        self.depths = {name: int(number) for name, number in _texts(depths) if int(number)}
        self.changed = {int(segment): int(at) for segment, at in _texts(changed)}
        self.paused = {queue: json.loads(about)["by"] for queue, about in _texts(paused)}
        self.due = {name.decode(): float(at) for name, at in _couples(due)}
        self.states = {name.decode(): int(number) for name, number in _couples(states) if int(number)}
        self.kept = {int(name): int(number) for name, number in _couples(kept)}
        self.segments = {int(one) for one in segments}
        self.seen = {_after(key, "{worker}:seen:") for key in seen}
        self.leases = {name.decode(): float(at) for name, at in _couples(leases)}
        self.ending = {one.decode() for one in ending}
        self.runners, self.said_by = dict(_texts(runners)), dict(_texts(said_by))
        self.counted_bytes = {name: int(number) for name, number in _texts(counted_bytes) if int(number)}
        self.now = int(now)


def _after(key: bytes, prefix: str) -> str:
    return key.decode().removeprefix(prefix)


def _stream_of(key: bytes) -> Stream:
    queue, priority, runner = _after(key, "{worker}:q:").split(":")
    return queue, priority, runner


def _key_of(stream: Stream) -> str:
    return "{worker}:q:" + ":".join(stream)


def _couples(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return itertools.batched(flat, 2) if hasattr(itertools, "batched") else zip(flat[::2], flat[1::2], strict=True)


def _texts(flat: list[bytes]) -> Iterator[tuple[str, str]]:
    return ((name.decode(), value.decode()) for name, value in _couples(flat))


def _fence(fields: list[bytes]) -> int | None:
    return int(fields[3]) if fields[0] == b"i" else None


class Process:
    """A worker process as the scripts see it."""

    def __init__(self, token: str, actors: dict[str, str]) -> None:
        self.token = token
        self.actors = actors
        self.commits = 0
        self.taken: list[Taken] = []
        self.last: list[Argument] = []


T = TypeVar("T")

a_queue = st.sampled_from(QUEUES)
a_later = st.sampled_from([-1, -1, -1, 0, HOUR_MS])
a_message = st.builds(
    FollowUp,
    id=st.sampled_from(IDS),
    queue=a_queue,
    priority=st.sampled_from(["high", "normal", "low"]),
    actor=st.sampled_from(["a", "b"]),
    payload=st.sampled_from([b'{"p":1}', b'{"p":2,"text":"{\\"s\\":\\"failed\\""}']),
    later=a_later,
    subject=st.sampled_from(["", "", "n=1", "n=2\x1eof=x"]),
)
_ENDS = {
    "retry": st.sampled_from([State.FAILED, State.SNOOZED]),
    "dead": st.just(State.FAILED),
    "back": st.just(State.CANCELLED),
}
"""The states in which an attempt ends whose message is not in that state then."""

a_sending = st.builds(
    Sending,
    message=a_message,
    unique=st.sampled_from(["", "", "", *KEYS]),
    until_start=st.booleans(),
    once=st.sampled_from([False, False, True]),
)
sendings = st.lists(a_sending, min_size=1, max_size=5)
outcomes = st.sampled_from(["completed", "completed", "skipped", "cancelled", "dead", "retry", "retry", "back"])
an_error = st.sampled_from(["ValueError", "a.b.<locals>.C", "a.D, ValueError", ""])
some_runners = st.fixed_dictionaries(
    {}, optional={"a": st.sampled_from(["thread", "loop"]), "b": st.sampled_from(RUNNERS)}
)
some_room = st.dictionaries(st.sampled_from(RUNNERS), st.integers(1, 6), min_size=1)
some_suspects = st.sampled_from([(0, 0), (0, 2), (1, 1), (1, 8)])
some_ids = st.lists(st.sampled_from([*IDS, "nobody"]), min_size=1, max_size=6, unique=True)
a_person = st.sampled_from(["ann", "bob"])


class BrokerMachine(RuleBasedStateMachine):
    """Drives the scripts and the model with the same steps."""

    client: ClassVar[RedisClient]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.model = Model()
        self.processes: dict[str, Process] = {}
        self.fences: dict[tuple[str, int], tuple[int, int]] = {}
        self.most = 1000
        self.room = -1
        self.garbage = 0
        self.deliveries: dict[tuple[str, int, int], tuple[str, str]] = {}
        self.moments = 2_000_000
        self.join(TOKENS[0], {"a": "thread"})
        self.join(TOKENS[1], {})

    @initialize(most=st.sampled_from([0, 2, 1000]), room=st.sampled_from([-1, -1, 0, 1_000]))
    def begin(self, most: int, room: int) -> None:
        self.most = most
        self.room = room

    # ------------------------------------------------------------------ processes come and go

    @rule(token=st.sampled_from(TOKENS), actors=some_runners)
    def join(self, token: str, actors: dict[str, str]) -> None:
        """An actor may have another runner than before, while messages wait for the former."""
        if token in self.processes:
            return
        self.processes[token] = Process(token, actors)
        self._join(token, HOUR_MS)
        self.model.join(token, QUEUES, actors)

    @rule(actors=some_runners)
    def a_sender_expects(self, actors: dict[str, str]) -> None:
        names = [part for pair in actors.items() for part in pair]
        assert bool(EXPECT.run(self.client, names)) == self.model.expect(actors)

    @rule(data=st.data())
    def a_process_says_again_what_runs_its_actors(self, data: st.DataObject) -> None:
        """Also one that has lost its lease without knowing it."""
        process = self._a_process(data)
        self._join(process.token, 0)
        self.model.say_again(process.token, process.actors)

    def _join(self, token: str, lease_ms: int) -> None:
        names = [part for pair in self.processes[token].actors.items() for part in pair]
        JOIN.run(self.client, [token, lease_ms, "{}", len(RUNNERS), *RUNNERS, len(QUEUES), *QUEUES, *names])

    @rule(data=st.data())
    def a_process_dies(self, data: st.DataObject) -> None:
        """Or is suspended: nobody hears of it until its lease has run out."""
        self._die(self._a_process(data).token)

    def _die(self, token: str) -> None:
        if token in self.model.alive:
            self.client.zadd("{worker}:leases", {token: 1}, xx=True)
            self.model.alive[token] = False

    @rule(data=st.data())
    def a_process_leaves(self, data: st.DataObject) -> None:
        token = self._a_process(data).token
        LEAVE.run(self.client, [token, 1])
        self._process(token).last = []
        self.model.tell_end(token)
        if token in self.model.alive:
            self.model.alive[token] = False

    @rule(data=st.data())
    def a_process_is_told_to_end(self, data: st.DataObject) -> None:
        """It goes on for a while; whatever ends it then is no crash."""
        token = self._a_process(data).token
        LEAVE.run(self.client, [token, 0])
        self.model.tell_end(token)

    # ------------------------------------------------------------------ messages come

    @rule(sent=sendings)
    def enqueue(self, sent: list[Sending]) -> None:
        self._enqueue([one for one in sent if self._can_be_sent(one.message.id)])

    def _enqueue(self, sent: list[Sending]) -> None:
        arguments: list[Argument] = [-1, len(sent)]
        for one in sent:
            one.until_start = one.until_start and bool(one.unique)
            if one.unique:
                one.message.payload = json.dumps({"options": {"unique": one.unique}}).encode()
        for one in sent:
            message, seen_ms = one.message, HOUR_MS if one.once else 0
            arguments += [message.id, message.payload, message.queue, message.priority, message.actor]
            arguments += [
                message.subject,
                message.later,
                one.unique,
                HOUR_MS,
                int(one.until_start),
                seen_ms,
                one.fence,
            ]
        answers = ENQUEUE.run(self.client, arguments)
        assert [one.decode() for one in answers] == self.model.enqueue(sent)

    @precondition(lambda self: any(one.taken for one in self.processes.values()))
    @rule(data=st.data(), sent=sendings)
    def attempts_enqueue_their_own_messages(self, data: st.DataObject, sent: list[Sending]) -> None:
        """Some have lost their messages; what happens to the others decides when that is enqueued."""
        process = self._a_process(data, with_taken=True)
        for one, taken in zip(sent, _some(data, process.taken), strict=False):
            one.message.id, one.fence, one.once = taken.id, taken.fence, False
        self._enqueue([one for one in sent if self._can_be_sent(one.message.id)])

    @rule(messages=st.lists(a_message, min_size=1, max_size=10))
    def enqueue_new(self, messages: list[FollowUp]) -> None:
        """The short way: of new messages that are not delayed."""
        messages = [one for one in messages if self._can_be_sent(one.id)]
        arguments: list[Argument] = []
        for one in messages:
            arguments += [one.id, one.payload, one.queue, one.priority, one.actor, one.subject]
        answers = ENQUEUE_NEW.run(self.client, arguments)
        for one, answer in zip(messages, answers, strict=True):
            assert bool(answer) != (one.id in self.model.messages)
            if answer:
                self.model.enqueue([Sending(replace(one, later=-1))])

    @rule(queue=a_queue, priority=st.sampled_from(PRIORITIES), runner=st.sampled_from(RUNNERS))
    def something_else_gets_into_a_stream(self, queue: str, priority: str, runner: str) -> None:
        self.garbage += 1
        name = f"garbage{self.garbage}"
        self.client.xadd(_key_of((queue, priority, runner)), {"x": name})
        self.model.stream(queue, priority, runner).append(Entry(name, None))

    # ------------------------------------------------------------------ processes take and give back

    @rule(data=st.data(), suspects=some_suspects, room=some_room, turn=st.booleans(), lost=st.booleans())
    def take(
        self, data: st.DataObject, suspects: tuple[int, int], room: dict[str, int], turn: bool, lost: bool
    ) -> None:
        """For the runners with room; sometimes the answer does not arrive."""
        queues = QUEUES[::-1] if turn else QUEUES
        self._take(self._a_process(data), room, queues, suspects=suspects, known=not lost)

    def _take(
        self,
        process: Process,
        room: dict[str, int],
        queues: list[str],
        *,
        suspects: tuple[int, int] = (1, 8),
        known: bool = True,
    ) -> None:
        places: list[Argument] = [part for pair in room.items() for part in pair]
        answer = TAKE.run(self.client, [process.token, *suspects, len(room), *places, *queues])
        if process.token not in self.model.alive:
            assert answer is None
            return
        given = self.model.take(process.token, suspects, room, queues)
        assert {one.decode() for one in answer[1]} == set(self.model.paused)
        self._sync()
        self._described(process, answer[2:], given, known=known)

    @rule(data=st.data(), outcome=st.sampled_from(["completed", "dead"]), sent=sendings)
    def a_process_works_off_what_waits(self, data: st.DataObject, outcome: str, sent: list[Sending]) -> None:
        """With what most messages go through, so that many segments come and go."""
        process = self._a_process(data)
        self._take(process, dict.fromkeys(RUNNERS, 4), QUEUES)
        held = {(one.message_id, one.id) for entries in self.model.streams.values() for one in entries if one.holder}
        held = {one for one in held if one[0] in self.model.messages}
        mine = [one for one in process.taken if (one.id, one.entry) in held and self._is_of_this_life(one)]
        kind = State.COMPLETED if outcome == "completed" else State.FAILED
        steps = [Step(one, True, [_line(one, kind)], outcome=outcome, kind=kind.value) for one in mine[-6:]]
        for step, one in zip(steps, sent, strict=False):
            step.follow_ups = [one.message] if self._has_ended_or_is_new(one.message.id) else []
        self._commit(process, steps)

    @rule(
        data=st.data(),
        room=some_room,
        cancelled=st.sampled_from([False, False, True]),
        once=st.sampled_from([False, False, True]),
        was_told=st.sampled_from([False, False, True]),
    )
    def messages_take_a_process_down(
        self, data: st.DataObject, room: dict[str, int], cancelled: bool, once: bool, was_told: bool
    ) -> None:
        """It begins them and dies of it, or because it was told to, or they were cancelled; and another finds that."""
        process = self._a_process(data)
        self._take(process, room, QUEUES)
        held = {one.id for entries in self.model.streams.values() for one in entries if one.holder == process.token}
        mine = [one for one in process.taken if one.entry in held]
        if cancelled and mine:
            ids = sorted({one.id for one in mine})
            self._ask(CANCEL, "cancel", "ann", ids, self.model.cancel("ann", ids))
        else:
            self._commit(process, [Step(one, True, [_line(one, State.STARTED)], once=once) for one in mine])
        if was_told:
            LEAVE.run(self.client, [process.token, 0])
            self.model.tell_end(process.token)
        self._die(process.token)
        self._keep(data, self._a_process(data), 1, look_around=True)

    @rule(data=st.data(), room=some_room)
    def wait_and_look(self, data: st.DataObject, room: dict[str, int]) -> None:
        """A process is given entries while it waits, whether or not its lease has run out or a queue was paused."""
        process = self._a_process(data)
        places = [(queue, priority, runner) for priority in PRIORITIES for queue in QUEUES for runner in room]
        names: Any = {_key_of(place): ">" for place in places}
        found: Any = self.client.xreadgroup("workers", process.token, names, 1)
        pairs = streams_in(found)
        arguments: list[Argument] = [process.token]
        given = []
        for stream, entries in pairs:
            place = _stream_of(stream)
            for entry, _ in entries:
                arguments += [stream, entry]
                (one,) = [one for one in self.model.stream(*place) if one.holder is None][:1]
                one.holder = process.token
                given.append((place, one))
        self._sync()
        if given:
            self._look(process, arguments, given)

    def _look(self, process: Process, arguments: list[Argument], given: list[Given]) -> None:
        described = LOOK.run(self.client, arguments)[2:]
        given = self.model.look(given)
        self._sync()
        self._described(process, described, given)

    @rule(data=st.data())
    def look_for_lost_answers(self, data: st.DataObject) -> None:
        """What a process holds without knowing, and what it has long lost and asks for all the same."""
        process = self._a_process(data)
        arguments: list[Argument] = [process.token]
        known = {taken.entry for taken in process.taken}
        given = []
        for stream, entries in self.model.streams.items():
            for one in entries:
                if one.holder == process.token and one.id not in known:
                    given.append((stream, one))
                    arguments += [_key_of(stream), one.id]
        held = {one.id for entries in self.model.streams.values() for one in entries if one.holder == process.token}
        for taken in process.taken:
            if taken.entry not in held:
                arguments += [_key_of(taken.stream), taken.entry]
        self._look(process, arguments, given)

    @precondition(lambda self: any(one.taken for one in self.processes.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        process = self._a_process(data, with_taken=True)
        some = _some(data, process.taken)
        arguments: list[Argument] = []
        for one in some:
            arguments += [_key_of(one.stream), one.entry, one.id, one.fence]
        GIVE_BACK.run(self.client, arguments)
        self.model.give_back(some)

    @precondition(lambda self: any(one.taken for one in self.processes.values()))
    @rule(data=st.data(), waits=st.sampled_from([HOUR_MS, HOUR_MS, 0]), reason=st.sampled_from(["x", "y"]))
    def set_aside(self, data: st.DataObject, waits: int, reason: str) -> None:
        """A process cannot run what it was given: others may for a while, and then it is a dead letter."""
        process = self._a_process(data, with_taken=True)
        some = _some(data, process.taken)
        arguments: list[Argument] = [waits]
        for one in some:
            arguments += [_key_of(one.stream), one.entry, one.id, one.fence]
            arguments += [f'{{"s":"waiting","x":"{reason}"}}\n', _line(one, State.FAILED, "worker.errors.UnknownActor")]
        answers = [one.decode() for one in SET_ASIDE.run(self.client, arguments)]
        assert answers == self.model.set_aside(some, reason, may_wait=bool(waits))

    # ------------------------------------------------------------------ attempts begin and end

    @precondition(lambda self: any(one.taken for one in self.processes.values()))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Of what a process holds, and of what it held once and has lost."""
        process = self._a_process(data, with_taken=True)
        current = [one for one in process.taken if self._is_of_this_life(one)]
        if not current:
            return
        some = _some(data, current)
        self._commit(process, [self._step(data, one) for one in some])

    def _commit(self, process: Process, steps: list[Step]) -> None:
        process.commits += 1
        process.last = [f"{process.token}:{process.commits}", 0, *self._limits()]
        process.last += [text for step in steps for text in _texts_of(step)]
        answers = COMMIT.run(self.client, process.last)
        assert tuple([one.decode() for one in answer] for answer in answers) == self.model.commit(steps)
        self._retired(2 * sum(bool(one.outcome) for one in steps) + 10, AGE_MS)

    @precondition(lambda self: any(one.last for one in self.processes.values()))
    @rule(data=st.data())
    def commit_again(self, data: st.DataObject) -> None:
        """The answer to a commit was lost: it is sent again, and changes nothing."""
        process = _one(data, [one for one in self.processes.values() if one.last])
        assert COMMIT.run(self.client, process.last) == [[], []]

    # ------------------------------------------------------------------ time passes

    @rule(data=st.data(), most=st.sampled_from([1, 3, 500]), look_around=st.booleans())
    def keep(self, data: st.DataObject, most: int, look_around: bool) -> None:
        """Takes over what dead processes held, enqueues what is due, forgets what is old."""
        self._keep(data, self._a_process(data), most, look_around=look_around)

    def _keep(self, data: st.DataObject, process: Process, most: int, *, look_around: bool) -> None:
        self.client.delete("{worker}:patience", "{worker}:kept-at")
        due = dict(self.model.due)
        before = Stored(self.client)
        age = data.draw(st.sampled_from([AGE_MS, AGE_MS, 0]))
        arguments: list[Argument] = [process.token, HOUR_MS, "{}", MOST_STARTS, most, int(look_around)]
        arguments += self._limits(age)
        answer = KEEP.run(self.client, arguments)
        held, lost = self.model.keep(process.token, MOST_STARTS, most, look_around=look_around, now=before.now)
        assert (bool(answer[0]), answer[3]) == (held, lost)
        ahead = [at for one, at in due.items() if one in self.model.due and at is not None]
        assert (answer[1] >= 0) == bool(ahead) or (self.room >= 0 and answer[1] == SOON_MS)
        if ahead:
            assert abs(answer[1] - max(0, min(ahead) - answer[4])) < 1 or (self.room >= 0 and answer[1] == SOON_MS)
        if look_around:
            self._retired(200, age)

    @precondition(lambda self: self.model.due)
    @rule(data=st.data(), ago=st.integers(0, 5))
    def an_hour_passes_for_one(self, data: st.DataObject, ago: int) -> None:
        """Some become due at the same moment."""
        message_id = _one(data, sorted(self.model.due))
        self.client.zadd("{worker}:due", {message_id: 1_000_000 - ago}, xx=True)
        self.model.due[message_id] = 1_000_000 - ago

    @rule(queue=a_queue)
    def flush(self, queue: str) -> None:
        while FLUSH.run(self.client, [queue]):
            pass
        self.model.flush(queue)

    # ------------------------------------------------------------------ people act

    @rule(ids=some_ids, by=a_person)
    def cancel(self, ids: list[str], by: str) -> None:
        """What waits ends; what runs is told, and ends so or otherwise."""
        self._ask(CANCEL, "cancel", by, ids, self.model.cancel(by, ids))

    @rule(
        data=st.data(),
        by=a_person,
        then=st.sampled_from(["retry", "back", "dead", "dies", "goes on"]),
    )
    def a_process_begins_what_is_then_cancelled(self, data: st.DataObject, by: str, then: str) -> None:
        """It has its own idea of what becomes of it, or dies."""
        process = self._a_process(data)
        self._take(process, dict.fromkeys(RUNNERS, 2), QUEUES)
        held = {one.id for entries in self.model.streams.values() for one in entries if one.holder == process.token}
        mine = [one for one in process.taken if one.entry in held and self._is_held(one)]
        if not mine:
            return
        taken = mine[-1]
        message = self.model.messages[taken.id]
        self._commit(process, [Step(taken, True, [_line(taken, State.STARTED)])])
        self._ask(CANCEL, "cancel", by, [message.id], self.model.cancel(by, [message.id]))
        assert message.id in self.model.cancelling
        if then == "dies":
            self._die(process.token)
            self._keep(data, self._a_process(data), 1, look_around=True)
            # Unless it was only suspended, and renews its own lease before anybody notices.
            assert message.state == "cancelled" or process.token in self.model.alive
        elif then != "goes on":
            kind = data.draw(_ENDS[then])
            step = Step(taken, True, [_line(taken, kind)], outcome=then, kind=kind.value, payload=b'{"late":1}')
            self._commit(process, [step])
            assert message.state == "cancelled"

    @rule(
        data=st.data(),
        by=a_person,
        then=st.sampled_from(["completed", "cancelled", "retry", "back", "dies", "goes on"]),
    )
    def a_process_begins_what_was_cancelled_just_before(self, data: st.DataObject, by: str, then: str) -> None:
        """The server hears of the begin after the cancel: what ran is told as having run."""
        process = self._a_process(data)
        self._take(process, dict.fromkeys(RUNNERS, 2), QUEUES)
        held = {one.id for entries in self.model.streams.values() for one in entries if one.holder == process.token}
        mine = [one for one in process.taken if one.entry in held and self._is_held(one)]
        mine = [one for one in mine if self.model.messages[one.id].state == "queued"]
        if not mine:
            return
        taken = mine[-1]
        message = self.model.messages[taken.id]
        self._ask(CANCEL, "cancel", by, [message.id], self.model.cancel(by, [message.id]))
        assert message.state == "cancelled"
        self._commit(process, [Step(taken, True, [_line(taken, State.STARTED)])])
        if self.model.messages.get(message.id) is not message:
            return  # as many as are kept
        assert message.attempts == taken.attempt
        if then == "dies":
            self._die(process.token)
            self._keep(data, self._a_process(data), 1, look_around=True)
        elif then != "goes on":
            kind = {"retry": State.FAILED, "back": State.CANCELLED}.get(then) or State(then)
            step = Step(taken, True, [_line(taken, kind)], outcome=then, kind=kind.value, payload=b'{"late":1}')
            self._commit(process, [step])
            assert message.state == ("completed" if then == "completed" else "cancelled")

    def _is_held(self, taken: Taken) -> bool:
        message = self.model.messages.get(taken.id)
        return message is not None and message.fence == taken.fence and not message.is_final

    @rule(ids=some_ids, by=a_person)
    def run_now(self, ids: list[str], by: str) -> None:
        self._ask(RUN_NOW, "run_now", by, ids, self.model.run_now(by, ids))

    @rule(ids=some_ids, by=a_person, garbage=st.booleans())
    def replay(self, ids: list[str], by: str, garbage: bool) -> None:
        """Also what nobody could read."""
        ids = [*ids, *(f"garbage{number}" for number in range(1, self.garbage + 1) if garbage)]
        payload = b'{"p":3}'
        self._ask(REPLAY, "replay", by, ids, self.model.replay(by, ids, payload), payload=payload)

    @rule(ids=some_ids, by=a_person)
    def purge(self, ids: list[str], by: str) -> None:
        self._ask(PURGE, "purge", by, ids, self.model.purge(by, ids))

    def _ask(
        self, script: Script, action: str, by: str, ids: list[str], expected: list[str], *, payload: bytes | None = None
    ) -> None:
        arguments: list[Argument] = [action, by, "host:1", " ".join(ids)]
        for one in ids:
            arguments += [one] if payload is None else [one, payload]
        answers = [one.decode() for one in script.run(self.client, arguments)]
        assert answers == expected

    @rule(action=st.sampled_from(["pause", "resume", "resume"]), queue=st.sampled_from([*QUEUES, "none"]), by=a_person)
    def pause_or_resume(self, action: str, queue: str, by: str) -> None:
        answer = PAUSE.run(self.client, [action, by, "host:1", queue])
        assert answer == (None if queue == "none" else self.model.turn(by, action, queue))

    # ------------------------------------------------------------------ what holds after every step

    @invariant()
    def the_server_holds_what_the_model_says(self) -> None:
        stored = self._sync()
        self._check_messages(stored)
        self._check_places(stored)
        self._check_indexes(stored)
        self._check_segments(stored)
        assert {name: number for name, number in stored.counted.items() if number} == dict(self.model.counted)
        assert set(stored.leases) == set(self.model.alive)
        assert stored.ending == self.model.ending
        assert (stored.runners, stored.said_by) == (self.model.runners, self.model.said_by)
        self._check_what_people_did(stored)
        for queue in QUEUES:
            waits = any(entries for (name, *_), entries in self.model.streams.items() if name == queue) or any(
                self.model.messages[one].queue == queue for one in self.model.due
            )
            assert WAITING.run(self.client, [queue]) == int(waits)

    def teardown(self) -> None:
        """What is asked of the indexes is found, newest first, and counted, page by page."""
        for wanted in WANTED:
            expected = [
                one.id for one in sorted(self.model.messages.values(), key=lambda one: -one.seq) if _is(one, wanted)
            ]
            assert self._found(wanted, 3) == (expected, len(expected))
            assert self._found(wanted, 0) == ([], len(expected))
        causes = Counter(one.cause for one in self.model.messages.values() if one.state == "dead")
        assert {cause.decode(): number for cause, number in _couples(DEATHS.run(self.client, []))} == causes
        assert not list(self.client.scan_iter("{worker}:x:scratch*"))

    def _found(self, wanted: MessageFilter, most: int) -> tuple[list[str], int]:
        found: list[str] = []
        counted, below = 0, None
        for _ in range(1000):
            cursor, count, *some = FIND.run(self.client, query._find_arguments(wanted, most, below, ()))
            found += [one.decode() for one in some[::2]]
            counted += count
            if cursor < 0:
                return found, counted
            below = cursor
        raise AssertionError("the search does not end")

    def _check_what_people_did(self, stored: Stored) -> None:
        assert stored.paused == self.model.paused
        assert stored.cancelling == self.model.cancelling
        told = [
            (one["by"], one["action"], one["target"], int(one["count"]), one["ids"].split()) for one in stored.audit
        ]
        audit = self.model.audit
        assert told == [(one.by, one.action, one.target, len(one.ids), one.ids) for one in audit]
        waiting = [one for one in self.model.messages.values() if not one.is_final]
        assert stored.depths == Counter(f"{one.queue}\t{one.state}" for one in waiting)
        for queue, queued, delayed, running, oldest, paused in DESCRIBE_QUEUES.run(self.client, [])[1:]:
            name = queue.decode()
            states = Counter(one.state for one in waiting if one.queue == name)
            assert (queued, delayed, running) == (states["queued"], states["delayed"], states["running"])
            assert bool(paused) == (name in self.model.paused)
            untaken = [
                one
                for (of_queue, *_), entries in self.model.streams.items()
                for one in entries
                if of_queue == name and one.holder is None and (one.fence is None or self.model.current(one))
            ]
            assert (oldest >= 0) == bool(untaken)
        for fields, _, _ in stored.messages.values():
            if fields[1] != "delayed" and int(fields[6]) <= stored.now:
                assert stored.changed[int(fields[0]) // SEGMENT] >= int(fields[6]), fields

    def _check_messages(self, stored: Stored) -> None:
        assert set(stored.messages) == set(self.model.messages)
        for one in self.model.messages.values():
            fields, payload, lines = stored.messages[one.id]
            seq, state, fence, attempts, starts, losses, _, cut, priority, queue, actor, subjects, *more = fields
            assert (seq, state, fence, attempts, starts, losses, cut, priority, queue, actor) == (
                str(one.seq),
                one.state,
                str(one.fence),
                str(one.attempts),
                str(one.starts),
                str(one.losses),
                "0",
                one.priority,
                one.queue,
                one.actor,
            )
            assert payload == one.payload
            assert sorted(field.partition("=")[0] for field in more) == _more(one)
            assert {name for name in subjects.split("\x1f") if name} == one.subjects
            assert len(lines) == len(one.lines)
            before = self.fences.get((one.id, one.life), (0, 0))
            assert (one.fence, one.attempts) >= before
            assert one.attempts >= before[1]
            self.fences[one.id, one.life] = one.fence, one.attempts

    def _check_places(self, stored: Stored) -> None:
        places: Counter[str] = Counter()
        for stream, entries in self.model.streams.items():
            named, pending = stored.streams[stream]
            assert [(one, fence) for _, one, fence in named] == [(one.message_id, one.fence) for one in entries]
            assert pending == {one.id: one.holder for one in entries if one.holder is not None}
            places.update(one.message_id for one in entries if self.model.current(one))
        assert stored.due == self.model.due
        places.update(list(stored.due))
        for one in self.model.messages.values():
            assert places[one.id] == (0 if one.is_final else 1)
            assert (one.id in stored.due) == (one.state == "delayed")
        for key in KEYS:
            assert len([one for one in self.model.messages.values() if one.unique == key and not one.is_final]) <= 1
        assert stored.unique == self.model.holders
        assert stored.seen == self.model.seen

    def _check_indexes(self, stored: Stored) -> None:
        marks: dict[tuple[int, str], set[int]] = {}
        subjects: dict[str, dict[str, int]] = {}
        for one in self.model.messages.values():
            for name in _marks(one):
                marks.setdefault((one.seq // SEGMENT, name), set()).add(one.seq % SEGMENT)
            for subject in one.subjects:
                subjects.setdefault(subject, {})[one.id] = one.seq
        assert {name: bits for name, bits in stored.marks.items() if bits} == marks
        assert stored.subjects == subjects
        assert stored.counted_bytes == dict(stored.bytes)
        assert stored.states == dict(Counter(one.state for one in self.model.messages.values()))

    def _check_segments(self, stored: Stored) -> None:
        kept = Counter(one.seq // SEGMENT for one in self.model.messages.values())
        current = self.model.seq // SEGMENT
        assert {name: number for name, number in stored.kept.items() if number} == dict(kept)
        assert set(kept) <= stored.segments <= set(kept) | {current}
        assert set(stored.ids) == stored.segments
        assert {segment for segment, _ in stored.marks} <= stored.segments
        for one in self.model.messages.values():
            assert stored.ids[one.seq // SEGMENT][one.seq % SEGMENT] == one.id

    # ------------------------------------------------------------------ help

    def _process(self, token: str) -> Process:
        return self.processes[token]

    def _a_process(self, data: st.DataObject, *, with_taken: bool = False) -> Process:
        tokens = sorted(token for token, one in self.processes.items() if one.taken or not with_taken)
        return self.processes[_one(data, tokens)]

    def _limits(self, age: int = AGE_MS) -> list[int]:
        return [DAY_S, *([age, self.most] * 4), self.room, -1]

    def _is_of_this_life(self, taken: Taken) -> bool:
        message = self.model.messages.get(taken.id)
        return message is None or message.life == taken.life

    def _step(self, data: st.DataObject, taken: Taken) -> Step:
        step = Step(taken, started=data.draw(st.booleans()), lines=[])
        step.once = step.started and data.draw(st.sampled_from([False, False, True]))
        step.subject = data.draw(st.sampled_from(["", "n=1", "n=2", "of=x"]))
        how = data.draw(st.sampled_from(["note", "end", "end"]))
        if how == "note":
            if step.started:
                step.lines = [_line(taken, State.STARTED)]
            return step
        step.outcome = data.draw(outcomes)
        state = data.draw(_ENDS[step.outcome]) if step.outcome in _ENDS else State(step.outcome)
        step.kind = state.value
        step.error = data.draw(an_error) if state in (State.FAILED, State.SNOOZED) else ""
        begun = [_line(taken, State.STARTED)] if step.started and taken.stream[2] != "thread" else []
        step.lines = [*begun, _line(taken, state, step.error)]
        if step.outcome == "retry":
            step.payload, step.later = b'{"again":1}', data.draw(st.sampled_from([-1, 0, HOUR_MS]))
        elif step.outcome != "back":
            step.follow_ups = data.draw(st.lists(a_message, max_size=2))
        # What ends here is not enqueued by its own end, nor by that of another in the same commit.
        step.follow_ups = [one for one in step.follow_ups if self._has_ended_or_is_new(one.id)]
        return step

    def _has_ended_or_is_new(self, message_id: str) -> bool:
        message = self.model.messages.get(message_id)
        return self._can_be_sent(message_id) and (message is None or message.is_final)

    def _can_be_sent(self, message_id: str) -> bool:
        """Not an id of which nothing is known any more, while an entry of its cancelled message waits to be removed."""
        return message_id in self.model.messages or not any(
            one.message_id == message_id for entries in self.model.streams.values() for one in entries
        )

    def _described(self, process: Process, answer: list[Any], given: list[Given], *, known: bool = True) -> None:
        """Compares the answer with what the process is given, and buries what nobody can read."""
        assert [one[1].decode() for one in answer] == [entry.id for _, entry in given]
        for described, (place, entry) in zip(answer, given, strict=True):
            stream, entry_id, message_id, fence, attempts, losses, _, payload = described
            assert stream.decode() == _key_of(place)
            assert entry_id.decode() == entry.id
            message = self.model.messages.get(entry.message_id)
            if message is None:
                assert message_id == b""
                assert payload == b"x " + entry.message_id.encode()
                if known:
                    self._bury(place, entry)
                continue
            assert message_id.decode() == message.id
            assert (fence, attempts, losses) == (message.fence, message.attempts, message.losses)
            assert payload == message.payload
            # A delivery is one process's, under one entry.
            delivery = self.deliveries.setdefault((message.id, message.life, fence), (process.token, entry.id))
            assert delivery == (process.token, entry.id)
            if known:
                taken = Taken(message.id, message.life, place, entry.id, message.fence, message.attempts + 1)
                process.taken = [*process.taken[-20:], taken]

    def _bury(self, stream: Stream, entry: Entry) -> None:
        event = StatusEvent(event="?.failed", state=State.FAILED, message_id=entry.message_id, actor="?")
        event_line = to_line(_with_error(event, "ValueError"))
        name = _key_of(stream)
        buried = entry.message_id
        for _ in range(2):  # the second time its answer had been lost
            BURY.run(self.client, [name, entry.id, buried, stream[0], b'{"undecodable":""}', event_line])
        self.model.bury(stream, entry, buried, b'{"undecodable":""}', event_line)
        self._sync()

    def _sync(self) -> Stored:
        """Learns from the server what it alone knows: ids of entries, and its clock."""
        stored = Stored(self.client)
        for stream, entries in self.model.streams.items():
            named, _ = stored.streams[stream]
            for (entry_id, message_id, _), entry in zip(named, entries, strict=False):
                assert entry.id in ("", entry_id)
                assert entry.message_id == message_id
                entry.id = entry_id
        for message_id, at in self.model.due.items():
            if at is None:
                score = stored.due[message_id]
                assert min(abs(score - stored.now - delay) for delay in DELAYS) < 10_000
                if score <= stored.now:
                    # In steps of our own, that the same examples always run in the same way.
                    self.moments += 1
                    score = float(self.moments)
                    self.client.zadd("{worker}:due", {message_id: score}, xx=True)
                    stored.due[message_id] = score
                self.model.due[message_id] = score
        return stored

    def _retired(self, budget: int, age: int) -> None:
        """Some of the ended are forgotten: of those that are too old or too many, and as many as may be at once."""
        stored = Stored(self.client)
        if self.room >= 0:
            self._freed(stored, budget, age)
            return
        gone = [one for one in self.model.messages.values() if one.id not in stored.messages]
        assert len(gone) <= budget
        for one in gone:
            assert one.is_final
            others = len([other for other in self.model.messages.values() if other.state == one.state])
            assert age == 0 or others > self.most
            self.model.remove(one)
        if len(gone) < budget:
            for state in FINAL:
                left = [one for one in self.model.messages.values() if one.state == state]
                assert len(left) <= (self.most if age else 0)

    def _freed(self, stored: Stored, budget: int, age: int) -> None:
        """What takes too much room loses its arguments; messages go only when there are no arguments any more."""
        changed = 0
        for one in list(self.model.messages.values()):
            if one.id not in stored.messages:
                assert one.is_final
                changed += 1
                self.model.remove(one)
            elif "bare=1" in stored.messages[one.id][0][12:] and not one.is_bare:
                assert one.state in SETTLED
                changed += 1
                one.payload = BARE
        assert changed <= 2 * budget
        settled = [one for one in self.model.messages.values() if one.state in SETTLED]
        size = sum(stored.bytes[state] for state in SETTLED)
        if size > self.room and changed < budget:
            assert {one.id for one in settled} <= self.model.cancelling, "what is left is needed"


def _one(data: st.DataObject, found: list[T]) -> T:
    # Not sampled_from: what is drawn must not depend on how many there are.
    return found[data.draw(st.integers(0, 719)) % len(found)]


def _some(data: st.DataObject, taken: list[Taken]) -> list[Taken]:
    """Up to four, each once."""
    picked = [taken[number % len(taken)] for number in data.draw(st.lists(st.integers(0, 719), min_size=1, max_size=4))]
    return list({(one.id, one.fence): one for one in picked}.values())


def _more(message: Message) -> list[str]:
    """The fields that its record has after the usual ones."""
    return (
        ["bare"] * message.is_bare
        + ["next"] * (message.next is not None)
        + ["once"] * message.once
        + (["unknown"] * message.is_unknown + ["until"] * message.until_start)
    )


def _marks(message: Message) -> set[str]:
    names = {f"actor:{message.actor}", f"queue:{message.queue}", f"state:{message.state}"}
    names |= {"bare"} if message.is_bare else set()
    names |= {f"cause:{message.cause}"} if message.state == "dead" else set()
    return names | {f"ended:{kind}" for kind in message.ended & LISTED} | {f"error:{error}" for error in message.errors}


WANTED = [
    MessageFilter(),
    MessageFilter(actor="a"),
    MessageFilter(queue="q", actor="b"),
    MessageFilter(states=("completed",)),
    MessageFilter(states=("failed", "lost", "queued"), actor="a"),
    MessageFilter(states=("snoozed", "running")),
    MessageFilter(states=("dead", "cancelled"), error="C"),
    MessageFilter(error="ValueError", queue="r"),
    MessageFilter(subject={"n": "1"}),
    MessageFilter(subject={"n": "1"}, actor="a", states=("completed", "dead", "running")),
    MessageFilter(subject={"n": "2", "of": "x"}, queue="q"),
    MessageFilter(subject={"n": "1", "of": "x"}, states=("failed", "completed")),
    MessageFilter(subject={"of": "x"}, since=datetime(2001, 1, 1, tzinfo=UTC)),
    MessageFilter(until=datetime(2999, 1, 1, tzinfo=UTC), states=("completed", "queued", "dead")),
]


def _is(message: Message, wanted: MessageFilter) -> bool:
    marks = _marks(message)
    types = {error.rpartition(".")[2] for error in message.errors}
    return (
        (not wanted.states or bool({MARKS[state] for state in wanted.states} & marks))
        and wanted.actor in (None, message.actor)
        and wanted.queue in (None, message.queue)
        and (wanted.error is None or wanted.error in types)
        and {f"{name}={value}" for name, value in wanted.subject.items()} <= message.subjects
    )


def _texts_of(step: Step) -> tuple[str, str]:
    taken = step.taken
    end = End(
        stream=_key_of(taken.stream),
        entry=taken.entry,
        outcome=step.outcome,
        kind=step.kind,
        error=step.error,
        took="3",
        waited="4",
        blocked="",
        payload=step.payload.decode(),
        later=step.later,
        follow_ups=[
            Parcel(one.id, one.payload, one.queue, one.priority, one.actor, one.subject, one.later)
            for one in step.follow_ups
        ],
    )
    return write_commit(
        (taken.id, taken.fence, taken.attempt),
        started="once" if step.once else "1" if step.started else "",
        lines="".join(step.lines),
        subjects=[step.subject] if step.subject else [],
        end=end if step.outcome else None,
    )


def _line(taken: Taken, state: State, error: str = "") -> str:
    """As threads write it, and as the loop does where nothing else has happened."""
    if taken.stream[2] != "thread" and state in (State.STARTED, State.COMPLETED):
        return usual_line(UsualEvent(state, 1.0, taken.attempt, 2.0, {}))
    event = StatusEvent(
        event=f"a.{state.value}",
        state=state,
        id=f"{taken.id}:{taken.attempt}",
        message_id=taken.id,
        actor="a",
        attempt=taken.attempt,
        text='{"s":"failed" "r":["Trap"',
    )
    return to_line(_with_error(event, error) if error else event)


def _with_error(event: StatusEvent, kind: str) -> StatusEvent:
    changed = copy.copy(event)
    object.__setattr__(changed, "error", ErrorInfo(kind, "text", "traceback"))
    return changed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClient]:
    folder: Path = tmp_path_factory.mktemp("machine")
    own = Settings(data_dir=folder, redis_url=None)
    embedded = EmbeddedServer(own)
    embedded.ensure_running()
    client = connect(own)
    client.config_set("appendonly", "no")
    yield client
    client.close()
    embedded.stop()


def test_the_scripts_agree_with_the_model_whatever_happens(server: RedisClient) -> None:
    """No message is in two places or in none, and records, counts and indexes tell the same."""
    BrokerMachine.client = server
    profile = settings(
        max_examples=examples(110),
        stateful_step_count=50,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(BrokerMachine, settings=profile)
