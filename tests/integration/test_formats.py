"""What Python and the scripts know alike: each writes what the other reads."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, NamedTuple

import dramatiq
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.stored import stored
from worker.broker import heartbeat, reader, sending
from worker.broker.commits import Commit
from worker.broker.committer import _COMMIT
from worker.broker.envelope import pack
from worker.broker.taken import Ending, TakenMessage
from worker.history.events import ErrorInfo, State, StatusEvent, WorkerId
from worker.history.limits import history_limits
from worker.history.lines import from_line, subject_names, to_line
from worker.history.record import read_record
from worker.history.states import ATTEMPT_MARKS, ENDINGS, MessageState
from worker.history.tail import read_entry
from worker.operations.actions import cancel
from worker.server.client import RedisClient
from worker.server.keys import LOOP, PRIORITIES, THREAD
from worker.server.layout import LAYOUT
from worker.server.scripts import Script
from worker.settings import Settings

TOKEN = "host:1:token"
LIMITS = [30 * 86_400, *([10**15, 10**9] * 4), -1, -1]
EVERY = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

SEPARATORS = ["\t", "\n", "\x1f", "\udc80", '"r":["T"', '{"s":"x"', "\\"]
"""What separates fields and lines, half of a character, and what scripts look for."""

a_text = st.text(st.characters(), max_size=12) | st.sampled_from(SEPARATORS)
a_name = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
a_number = st.integers(0, 10**9)


class Told(NamedTuple):
    """What an attempt is made to tell."""

    actor: str
    argument: str
    text: str
    error: str
    subject: dict[str, str]

    def event(self, state: State) -> StatusEvent:
        """An event of the attempt."""
        return StatusEvent(
            event=f"{self.actor}.{state}",
            state=state,
            id="m:1.end" if state.is_final else "m:1",
            message_id="m",
            actor=self.actor,
            queue="default",
            attempt=1,
            subject=self.subject,
            text=self.text,
            worker=WorkerId("host", 7),
            error=ErrorInfo(self.error, self.text, self.text) if state is State.FAILED else None,
        )


a_subject = st.dictionaries(a_name.filter(lambda name: "=" not in name), a_text, max_size=2)
an_error = st.sampled_from(["", "ValueError", "a.b.<locals>.C"])


def script(includes: str, code: str) -> Script:
    """A script of these lines, after what it includes."""
    made = copy.copy(Script(includes))
    made._text += code
    made._hash = hashlib.sha1(made._text.encode()).hexdigest()
    return made


def taken(client: RedisClient, message: dramatiq.Message[Any]) -> TakenMessage:
    """The message, enqueued and taken."""
    client.flushdb()
    sent = pack(message, 10**6, priority=-1)
    assert sending._ENQUEUE_NEW.run(client, sent[:6]) == [1]
    queue, actor = message.queue_name, message.actor_name
    heartbeat._JOIN.run(client, [TOKEN, 60_000, "{}", 1, "thread", 1, queue, actor, "thread"])
    _, _, (stream, entry, _, fence, *_, payload) = reader._TAKE.run(client, [TOKEN, 1, 8, 1, "thread", 1, queue])
    assert payload == sent.payload
    return TakenMessage(
        message,
        stream=stream.decode(),
        entry=entry.decode(),
        fence=fence,
        attempt=1,
        losses=0,
        waited_ms=0,
        epoch=1,
        payload=payload,
    )


def without_halves(text: str) -> str:
    """The text as it is stored: with halves of characters written out."""
    return text.encode("utf-8", "backslashreplace").decode()


@EVERY
@given(told=st.builds(Told, a_name, a_text, a_text, an_error, a_subject))
def test_what_python_commits_is_what_it_reads_from_the_record(client: RedisClient, told: Told) -> None:
    """Whatever texts hold: what separates fields, lines, or halves of characters."""
    arguments = (without_halves(told.argument),)
    message: dramatiq.Message[Any] = dramatiq.Message("default", told.actor, arguments, {}, {}, message_id="m")
    one = taken(client, message)
    events = [told.event(State.STARTED), told.event(State.FAILED if told.error else State.COMPLETED)]
    commit = Commit(one, started=True, events=[*events], ending=Ending(event=events[1]))
    assert _COMMIT.run(client, ["name", 0, *LIMITS, *commit.texts()]) == [[], []]
    found = stored(client, "m")
    assert (found.actor, found.queue, found.priority, found.attempts) == (told.actor, "default", "high", 1)
    assert found.state == ("dead" if told.error else "completed")
    assert json.loads(found.payload)["args"] == list(arguments)
    assert list(found.events) == [from_line(to_line(event), "m", told.actor, "default") for event in events]
    assert {f"{name}={value}" for name, value in found.subject.items()} == set(subject_names(told.subject))
    newest: Any = client.xrevrange("{worker}:events", count=1)
    assert list(read_entry(newest[0][1][b"e"])) == list(found.events)


@EVERY
@given(
    numbers=st.lists(a_number, min_size=7, max_size=7),
    names=st.lists(a_name, min_size=2, max_size=2),
    more=st.lists(st.from_regex(r"[a-z]{1,5}=[^\t\n\r]{0,9}", fullmatch=True), max_size=3),
)
def test_a_record_is_stored_as_it_was_read_with_fields_of_a_later_version(
    client: RedisClient, numbers: list[int], names: list[str], more: list[str]
) -> None:
    """Both sides pass over what they do not know, and scripts keep it."""
    seq, fence, attempts, starts, losses, at, cut = map(str, numbers)
    head = [seq, "queued", fence, attempts, starts, losses, at, cut, "low", *names, "\x1fn=1\x1f", *more]
    record = "\t".join(map(without_halves, head)) + '\n{"args":[]}\n{"s":"started","t":1,"w":"h:1","n":1}\n'
    again = script("record", "return encode_record(decode_record(ARGV[1]))").run(client, [record])
    assert again.decode() == record
    found = read_record("m", again)
    assert found is not None
    known = (found.number, found.fence, found.attempts, found.events_left_out)
    assert known == (numbers[0], numbers[1], numbers[2], numbers[6])
    assert (found.actor, found.queue, found.subject, len(found.events)) == (names[1], names[0], {"n": "1"}, 1)


def test_a_script_keeps_what_a_later_version_added_to_a_record(client: RedisClient) -> None:
    """Also where the message changes its state."""
    one = taken(client, dramatiq.Message("default", "a", (), {}, {}, message_id="m"))
    record: Any = client.get("{worker}:m:m")
    head, _, rest = record.partition(b"\n")
    client.set("{worker}:m:m", head + b"\tlimit=gpu\tparent=m0\n" + rest)
    assert _COMMIT.run(client, ["name", 0, *LIMITS, *Commit(one, started=True).texts()]) == [[], []]
    assert stored(client, "m").state == "running"
    record = client.get("{worker}:m:m")
    assert record.partition(b"\n")[0].endswith(b"\t\tlimit=gpu\tparent=m0")


def test_a_new_record_is_written_alike_in_the_short_and_the_usual_way(client: RedisClient) -> None:
    """`enqueue_new` writes what `enqueue` does."""
    code = """
    local record = new_record('q', 'low', 'a', '{}', read_subjects('n=1\\30of=x'))
    record.seq, record.at, record.fence, record.state = 7, now_text, 1, 'queued'
    return { encode_record(record), 7 .. encode_new(now_text, 'low', 'q', 'a') .. '\\31n=1\\31of=x\\31\\n{}\\n' }
    """
    usual, short = script("records", code).run(client, [])
    assert usual == short


@EVERY
@given(by=a_text.filter(bool), where=st.sampled_from(["host:1", "a-b.c:77"]))
def test_what_a_script_writes_as_an_event_is_read_by_python(client: RedisClient, by: str, where: str) -> None:
    """Whoever asks, under whatever name."""
    members = "{ t = now, w = ARGV[1], n = 3, i = '3.cancel.5', x = 'cancel', y = ARGV[2] }"
    line = script("records", f"return encode_line('requested', {members})").run(client, [where, by])
    event = from_line(line, "m", "a", "q")
    assert (event.state, event.id, event.attempt, event.text) == (State.REQUESTED, "m:3.cancel.5", 3, "cancel")
    assert event.by == without_halves(by)
    assert f"{event.worker.host}:{event.worker.pid}" == where


def test_a_request_is_read_as_it_was_made(client: RedisClient) -> None:
    """With who asked for it, and when."""
    taken(client, dramatiq.Message("default", "a", (), {}, {}, message_id="m"))
    cancel(client, ["m"], by="Ann \t\n O'Neil")
    (event,) = stored(client, "m").events
    assert (event.state, event.text, event.by) == (State.REQUESTED, "cancel", "Ann \t\n O'Neil")


def test_both_sides_know_the_same_states_in_the_same_order(client: RedisClient) -> None:
    """And which of them are final."""
    code = """
    local final = {}
    for i, state in ipairs(STATES) do
      final[i] = FINAL[state] and 1 or 0
    end
    return { STATES, final }
    """
    states, final = script("states", code).run(client, [])
    assert [one.decode() for one in states] == list(MessageState)
    assert [bool(one) for one in final] == [state.is_final for state in MessageState]


def test_both_sides_know_the_same_ends_by_which_messages_are_marked(client: RedisClient) -> None:
    """The server marks all by which a message can be found, and none that there is not."""
    code = """
    local marked = {}
    for kind in pairs(MARKED_ENDS) do
      table.insert(marked, kind)
    end
    return marked
    """
    marked = {one.decode() for one in script("states", code).run(client, [])}
    assert set(ATTEMPT_MARKS) <= marked <= set(ENDINGS)


def test_both_sides_know_the_same_limits_of_the_history(client: RedisClient, settings: Settings) -> None:
    """Dead letters are kept longer."""
    code = """
    number()
    local limits, bounds = read_limits(), read_bounds()
    return { limits.dead.age, limits.completed.age, limits.cancelled.most }
    """
    found = script("bytes", code).run(client, history_limits(settings))
    dead, kept = settings.dead_retention.total_seconds(), settings.history_retention.total_seconds()
    assert found == [dead * 1000, kept * 1000, settings.history_limit]


@pytest.mark.parametrize("name", ["due", "layout", "orders", "tail", "wake"])
def test_both_sides_name_keys_alike(client: RedisClient, name: str) -> None:
    """Those that both use."""
    assert script("keys", f"return KEY.{name}").run(client, []).decode() == getattr(client.namespace, name)


def test_both_sides_know_the_same_layout_priorities_and_runners(client: RedisClient) -> None:
    """A worker that joins writes the layout that it reads."""
    heartbeat._JOIN.run(client, [TOKEN, 60_000, "{}", 1, THREAD, 1, "default", "a", THREAD])
    assert client.hget(client.namespace.layout, "version") == str(LAYOUT).encode()
    priorities, runners = script("streams", "return { PRIORITIES, all_runners() }").run(client, [])
    assert [one.decode() for one in priorities] == list(PRIORITIES)
    assert [one.decode() for one in runners] == [THREAD, LOOP]


def test_both_sides_name_streams_alike(client: RedisClient) -> None:
    """Whatever a queue is called, its name is found in that of its stream."""
    place = "a:b {c}", "high", "thread"
    found = script("keys", "return KEY.stream(ARGV[1], ARGV[2], ARGV[3])").run(client, place)
    assert found.decode() == client.namespace.stream(*place)
    assert client.namespace.queue_of(found.decode()) == place[0]
