"""How messages get to the server: the short way and the general one, and what each stores."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from worker.broker import sending
from worker.broker.envelope import Parcel
from worker.broker.sending import SEND_GROUP, Sender
from worker.server.client import RedisClient
from worker.server.keys import THREAD
from worker.server.scripts import Argument, Script

SEGMENT = 40
"""Messages in a segment of the indexes, instead of thousands: so that some fill many, with runs of every length."""


SUBJECTS = ("", "n=1", "n=2\x1eof=x")


def parcels(count: int, *, kinds: int = 3) -> list[Parcel]:
    """Messages of some actors, queues and priorities, mixed or in runs, each once."""
    chance = random.Random(count)
    made = []
    for number in range(count):
        kind = chance.randrange(kinds) if number % 100 < 50 else 0
        priority = ("normal", "high", "low")[kind % 3]
        payload = f'{{"text":"{"ä" * kind}\\"s\\":\\"failed\\""}}'.encode()
        made.append(Parcel(f"m{number}", payload, f"queue {kind}", priority, f"actor {kind % 2}", SUBJECTS[kind]))
    return made


def at_a_fixed_time(script: Script) -> Script:
    """The same script with small segments, and a clock that stands still."""
    made = copy.copy(script)
    for old, new in {"4096": str(SEGMENT), "call('TIME')": "{ '1700000000', '123456' }"}.items():
        assert old in made._text
        made._text = made._text.replace(old, new)
    made._hash = hashlib.sha1(made._text.encode()).hexdigest()
    return made


NOW = 1_700_000_000_123
GENERAL = at_a_fixed_time(sending._ENQUEUE)
SHORT = at_a_fixed_time(sending._ENQUEUE_NEW)


def the_general_way(client: RedisClient, some: Sequence[Parcel]) -> None:
    GENERAL.run(client, [-1, len(some), *(part for one in some for part in one)])


def the_short_way(client: RedisClient, some: Sequence[Parcel]) -> list[int]:
    arguments: list[Argument] = [part for one in some for part in one[:6]]
    answers: list[int] = SHORT.run(client, arguments)
    return answers


def everything(client: RedisClient) -> dict[str, object]:
    """All keys with what they hold; of entries the fields, for their ids are the server's real clock."""
    readers: dict[Any, Callable[[Any], object]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": lambda key: entries(client, key),
    }
    keys: Any = client.keys("*")
    return {key.decode(): readers[client.type(key)](key) for key in keys}


def entries(client: RedisClient, stream: str | bytes) -> list[Any]:
    found: Any = client.xrange(stream)
    return [fields for _, fields in found]


@pytest.mark.parametrize(
    "sizes", [[1] * 60, [SEGMENT], [500, 3, 497], [7] * 30], ids=["singly", "a segment", "many", "a few"]
)
def test_both_ways_store_the_same(client: RedisClient, sizes: list[int]) -> None:
    """To the last byte, with whatever is there already."""
    found = []
    for way in (the_general_way, the_short_way):
        client.flushdb()
        rest = parcels(sum(sizes))
        for size in sizes:
            way(client, rest[:size])
            del rest[:size]
        found.append(everything(client))
    general, short = found
    assert short.keys() == general.keys()
    assert short == general


def test_the_short_way_leaves_what_is_known_to_the_general_one(client: RedisClient) -> None:
    """Also what comes twice in one group."""
    some = parcels(5)
    assert the_short_way(client, some[:2]) == [1, 1]
    before = everything(client)
    assert the_short_way(client, [some[1], some[0], some[1]]) == [0, 0, 0]
    assert everything(client) == before
    assert the_short_way(client, [some[2], some[0], some[2], some[3]]) == [1, 0, 0, 1]
    assert client.lrange("{worker}:x:0:ids", 0, -1) == [one.message_id.encode() for one in some[:4]]
    assert client.get("{worker}:seq") == b"4"


def test_what_is_special_goes_its_own_way_in_its_order(client: RedisClient) -> None:
    """Delayed messages in a group, and those that were sent before."""
    sender = Sender(client, lambda _: THREAD)
    some = parcels(2 * SEND_GROUP, kinds=1)
    some[3] = some[3]._replace(delay_ms=60_000)
    sender.send(some[-2:])
    sender.send(some)
    sender.send(some)
    assert client.hgetall("{worker}:states") == {b"queued": b"%d" % (2 * SEND_GROUP - 1), b"delayed": b"1"}
    waiting = [fields[b"i"].decode() for fields in entries(client, "{worker}:q:queue 0:normal:thread")]
    assert waiting == [one.message_id for one in some[-2:] + some[:3] + some[4:-2]]


@pytest.mark.parametrize(
    ("ended_ms_ago", "tried_for_ms", "is_enqueued"),
    [(1, 0, True), (0, 0, True), (10, 10, True), (9, 10, False), (0, 10, False), (-2_000, 10, True), (0, -1, True)],
    ids=["before", "at once", "as it began", "since then", "now", "by a clock that was ahead", "at the first try"],
)
def test_what_has_ended_since_its_send_began_is_not_enqueued_again(
    client: RedisClient, ended_ms_ago: int, tried_for_ms: int, is_enqueued: bool
) -> None:
    """An earlier try of the same send has enqueued it; where that is not sure it is enqueued."""
    [one] = parcels(1)
    the_short_way(client, [one])
    key = f"{{worker}}:m:{one.message_id}"
    record: Any = client.get(key)
    ended = str(NOW - ended_ms_ago).encode()
    client.set(key, record.replace(b"\tqueued\t", b"\tcompleted\t").replace(str(NOW).encode(), ended))
    GENERAL.run(client, [tried_for_ms, 1, *one])
    found: Any = client.get(key)
    assert found.split(b"\t")[1] == (b"queued" if is_enqueued else b"completed")


def test_an_answer_that_nobody_has_read_is_not_that_of_the_next_command(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit, or Ctrl-C, may interrupt a sender between its command and the answer."""
    line = client.line()
    assert line.execute_command("ECHO", "first") == b"first"

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client.connection_pool.connection_class, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            line.execute_command("ECHO", "second")
    assert line.execute_command("ECHO", "third") == b"third"


def test_the_connection_of_a_line_goes_back_to_its_pool(client: RedisClient) -> None:
    """As that of a thread that has sent, and has ended: the next takes it."""
    first = client.line().execute_command("CLIENT", "ID")
    assert client.line().execute_command("CLIENT", "ID") == first
