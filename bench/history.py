"""Measures the history with a million messages: its cost, and the speed of its answers.

    python bench/history.py [--messages 1000000] [--runs 200] [--part PART …] [--keep DIR] [--json FILE]

A private server, embedded as in a project without Redis, is filled by two worker processes without actors
(`history_load.py`): every message is sent, taken, begun and ended through the scripts that all workers use. There are
12 actors, one of them rare, and 4 queues; 4 % of first attempts fail, with a traceback, by 20 types of errors, and 1 %
of the messages are dead letters; there are 20,000 conversations, and a large and a small tenant, with 30 % and 0.5 % of
the messages. 5,000 more are delayed, 1,000 wait and 64 run. The clock of the server cannot be moved: the counters of
times before the filling are copies of present ones. With `--keep`, a folder is filled up to the number, and kept.
- questions: one client asks each of them many times, in turn with all others. The time is the caller's, from the
  question to the typed answer; `server` is the script's alone. If an answer comes in parts, the time is that of all of
  them, to a full page or a whole count; `calls` is their number. Then again while another process writes 2,000 events
  per second, and while its limit is a tenth below the stored number, so that every commit removes old messages.
- memory: bytes per message, without the tail and the counters, which have a bound of their own.
- latency: at 2,000 events per second, from a worker's `record` of an event to a follower in another process; and to a
  client of `worker web`, which reads server-sent events over HTTP as a browser does. The time is the machine's clock,
  carried in the events' text.

The append-only file is on, as in every installation, and is rewritten before the measuring, not during it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from history_load import (
    ACTORS,
    CONVERSATIONS,
    ERRORS,
    MINUTE_MS,
    QUEUES,
    RARE_ACTOR,
    RARE_ERROR,
    SMALL_TENANT,
    TENANT,
    depth,
    send,
)

from worker.broker.sending import Sender
from worker.history import overview, query
from worker.history.answers import Page
from worker.history.events import State
from worker.history.filters import EventFilter, MessageFilter
from worker.history.tail import follow_events
from worker.operations.actions import pause, resume
from worker.server.client import RedisClient
from worker.server.connection import connect
from worker.server.embedded import EmbeddedServer
from worker.settings import Settings

Figures = dict[str, Any]

PARTS = ("questions", "latency")
LOAD = Path(__file__).with_name("history_load.py")
BOUND_MS = 20.0
EVENTS = 2_000
FILLERS = 2
DELAYED = 5_000
WAITING = 1_000
AUDITED = 200
FILTERS = 50
MINUTES, HOURS, DAYS = 130, 7 * 24 + 1, 8
LATENCY_SECONDS = 10.0
SETTLE = 2.0
SERVER_RUNS = 5
COUNTERS = ("{worker}:w*:*", "{worker}:[hd]:*", "{worker}:ht:*", "{worker}:sums")
FINISHED = ("completed", "skipped", "dead", "cancelled")


def tell(what: str) -> None:
    """Prints the present step, if standard error is a terminal."""
    if sys.stderr.isatty():
        print(what.ljust(60), end="\r", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- the history


def filled(settings: Settings, client: RedisClient, messages: int) -> Figures:
    """Fills the history up to this many finished messages; returns the seconds and bytes that it took."""
    known = settings.data_dir / "filled.json"
    there = depth(client, *FINISHED)
    if there >= messages:
        return dict(json.loads(known.read_text())) if known.is_file() else {}
    before, began = client.info("memory")["used_memory"], time.monotonic()
    each = math.ceil((messages - there) / FILLERS)
    first = int(client.get("{worker}:seq") or 0)
    started = [
        subprocess.Popen(
            [
                *(sys.executable, str(LOAD), "fill", "--data", str(settings.data_dir)),
                *("--first", str(first + number * each), "--messages", str(each)),
            ]
        )
        for number in range(FILLERS)
    ]
    while any(one.poll() is None for one in started):
        tell(f"filling: {depth(client, *FINISHED):,} messages")
        time.sleep(1)
    if any(one.returncode for one in started):
        sys.exit("the history could not be filled")
    figures: Figures = {"fill_seconds": time.monotonic() - began}
    if there == 0:
        figures |= bytes_used(client, before)
    known.write_text(json.dumps(figures))
    return figures


def bytes_used(client: RedisClient, before: int) -> Figures:
    """Bytes per message, in all and for each part."""

    def of(pattern: str) -> int:
        return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(pattern, count=1000))

    messages = depth(client, *FINISHED)
    tail, counters = of("{worker}:events"), sum(map(of, COUNTERS))
    used = client.info("memory")["used_memory"] - before - tail - counters
    records = [
        client.memory_usage(f"{{worker}}:m:{one.id}", samples=0) or 0
        for one in query.ask(client, query.page_of_messages(MessageFilter(), limit=2_000)).messages
    ]
    return {
        "bytes_a_message": used / messages,
        "bytes_of_record": statistics.mean(records),
        "bytes_of_subjects": of("{worker}:s:*") / messages,
        "bytes_of_other_indexes": (of("{worker}:x:*") + of("{worker}:at:*")) / messages,
        "tail_bytes": tail,
        "counter_bytes": counters,
    }


def complete(client: RedisClient) -> None:
    """Adds delayed, waiting and running messages."""
    number = int(client.get("{worker}:seq") or 0)
    if (missing := DELAYED - depth(client, "delayed")) > 0:
        send(Sender(client), range(number, number + missing), delayed=True)
    if (missing := WAITING - depth(client, "queued")) > 0:
        send(Sender(client), range(number, number + missing))
    for number in range(AUDITED // 2 if client.xlen("{worker}:audit") < AUDITED else 0):
        pause(client, QUEUES[-1], by=f"user {number}")
        resume(client, QUEUES[-1], by=f"user {number}")
    copy_counters(client)
    client.config_set("auto-aof-rewrite-percentage", 0)
    client.bgrewriteaof()
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.1)


def copy_counters(client: RedisClient) -> None:
    """Copies the counters of the fullest minute and hour to the times before the filling."""
    now = time.time() * 1000
    for kind, minutes, count in (("w", 1, MINUTES), ("w10", 10, MINUTES // 10), ("h", 60, HOURS), ("d", 24 * 60, DAYS)):
        unit = minutes * MINUTE_MS
        for prefix in (f"{{worker}}:{kind}:", *([f"{{worker}}:{kind}t:"] if kind in "wh" else ())):
            fullest = max(client.scan_iter(prefix + "*"), key=client.hlen)
            last = int(now / unit)
            for window in range(last - count, last):
                if (copied := f"{prefix}{window}") != fullest.decode():
                    client.copy(fullest, copied)


# ---------------------------------------------------------------------- the questions


@dataclass(frozen=True, slots=True)
class Answered:
    """The number of results, and the number of calls for them."""

    found: int
    calls: int


Ask = Callable[[RedisClient, random.Random], Answered]


def page(wanted: Callable[[random.Random], MessageFilter] | MessageFilter, *, later: float = 0) -> Ask:
    """A page of 50, from the share `later` of all messages on: 0 is the newest, 1 the oldest."""

    def ask(client: RedisClient, chance: random.Random) -> Answered:
        now = wanted if isinstance(wanted, MessageFilter) else wanted(chance)
        cursor = None if not later else round(_newest * (1 - later))
        found = calls = 0
        while True:
            one = query.ask(client, query.page_of_messages(now, limit=query.PAGE - found, cursor=cursor))
            found, calls, cursor = found + len(one.messages), calls + 1, one.cursor
            if cursor is None or found == query.PAGE:
                return Answered(found, calls)

    return ask


def number_of(wanted: MessageFilter) -> Ask:
    """A whole count."""

    def ask(client: RedisClient, _: random.Random) -> Answered:
        total, calls, cursor = 0, 0, None
        while True:
            one = query.ask(client, query.count_of_messages(wanted, cursor=cursor))
            total, calls, cursor = total + one.count, calls + 1, one.cursor
            if cursor is None:
                return Answered(total, calls)

    return ask


def other(question: Callable[[], query.Question[Any]]) -> Ask:
    """A question of one call."""

    def ask(client: RedisClient, _: random.Random) -> Answered:
        found = query.ask(client, question())
        return Answered(len(found.messages if isinstance(found, Page) else found), 1)

    return ask


def events(wanted: EventFilter) -> Ask:
    """The newest 50 events."""

    def ask(client: RedisClient, _: random.Random) -> Answered:
        return Answered(len(query.read_events(client, wanted, query.PAGE)), 1)

    return ask


_newest = 0


def conversation(chance: random.Random, **more: Any) -> MessageFilter:  # noqa: ANN401 - fields of the filter
    return MessageFilter(subject={"conversation_id": str(chance.randrange(CONVERSATIONS))}, **more)


def all_questions(client: RedisClient) -> dict[str, Ask]:
    """All questions, by name."""
    global _newest
    _newest = int(client.get("{worker}:seq") or 0)
    found: Any = client.zrange("{worker}:segments", 0, -1, withscores=True)
    began = [datetime.fromtimestamp(at / 1000, UTC) for _, at in found]
    early, middle, late = (began[round((len(began) - 1) * share)] for share in (0.1, 0.5, 0.9))
    span = (late - early) / 16
    ids: Any = client.lrange(f"{{worker}}:x:{_newest // 4096 // 2}:ids", 0, -1)
    frequent, seldom = ACTORS[0], RARE_ACTOR
    tenant, small = {"tenant": TENANT}, {"tenant": SMALL_TENANT}
    of = MessageFilter

    def one(client: RedisClient, chance: random.Random) -> Answered:
        found = query.ask(client, query.one_message(chance.choice(ids).decode()))
        return Answered(int(found is not None), 1)

    def delayed_later(client: RedisClient, _: random.Random) -> Answered:
        last = query.ask(client, query.delayed_messages())[-1]
        return Answered(len(query.ask(client, query.delayed_messages(after=last))), 2)

    pages: dict[str, Callable[[random.Random], MessageFilter] | MessageFilter] = {
        "the newest": of(),
        "completed": of(states=("completed",)),
        "dead": of(states=("dead",)),
        "had a failed attempt": of(states=("failed",)),
        "skipped or cancelled": of(states=("skipped", "cancelled")),
        "queued": of(states=("queued",)),
        "lost (none)": of(states=("lost",)),
        "frequent actor": of(actor=frequent),
        "rare actor": of(actor=seldom),
        "unknown actor": of(actor="nobody"),
        "queue": of(queue=QUEUES[1]),
        "frequent error": of(error=ERRORS[0]),
        "rare error": of(error=RARE_ERROR.rpartition(".")[2]),
        "unknown error": of(error="Nothing"),
        "conversation": conversation,
        "tenant": of(subject=tenant),
        "small tenant": of(subject=small),
        "small tenant, dead": of(subject=small, states=("dead",)),
        "conversation of tenant": lambda chance: of(subject={**conversation(chance).subject, **tenant}),
        "unknown subject": of(subject={"conversation_id": "nothing"}),
        "actor, queue, completed": of(actor=ACTORS[1], queue=QUEUES[1], states=("completed",)),
        "actor, another's queue": of(actor=frequent, queue=QUEUES[1]),
        "actor, another's queue, 3 states": of(
            actor=frequent, queue=QUEUES[1], states=("dead", "skipped", "completed")
        ),
        "rare actor, dead": of(actor=seldom, states=("dead",)),
        "rare actor, rare error": of(actor=seldom, error=RARE_ERROR),
        "queue, dead, error": of(queue=QUEUES[2], states=("dead",), error=ERRORS[3]),
        "conversation, actor": functools.partial(conversation, actor=frequent),
        "conversation, dead": functools.partial(conversation, states=("dead",)),
        "tenant, dead": of(subject=tenant, states=("dead",)),
        "tenant, rare actor": of(subject=tenant, actor=seldom),
        "tenant, dead, rare error": of(subject=tenant, states=("dead",), error=RARE_ERROR),
        "tenant, actor, another's queue": of(subject=tenant, actor=frequent, queue=QUEUES[1]),
        "since late": of(since=late),
        "until early": of(until=early),
        "until early, completed": of(until=early, states=("completed",)),
        "since middle, dead": of(since=middle, states=("dead",)),
        "window": of(since=middle, until=middle + span),
        "window, completed, actor": of(since=middle, until=middle + span, states=("completed",), actor=ACTORS[2]),
        "window, dead": of(since=middle, until=middle + span, states=("dead",)),
        "window, rare actor": of(since=middle, until=middle + span, actor=seldom),
        "window, tenant": of(since=middle, until=middle + span, subject=tenant),
        "window, tenant, dead": of(since=middle, until=middle + span, subject=tenant, states=("dead",)),
        "window, conversation": functools.partial(conversation, since=middle, until=middle + span),
        "since an hour to come": of(since=datetime.now(UTC) + timedelta(hours=1)),
    }
    counts: dict[str, MessageFilter] = {
        "all": of(),
        "completed": of(states=("completed",)),
        "actor, dead": of(actor=frequent, states=("dead",)),
        "error": of(error=ERRORS[0]),
        "2 states, queue": of(states=("skipped", "cancelled"), queue=QUEUES[0]),
        "conversation": of(subject={"conversation_id": "7"}),
        "tenant": of(subject=tenant),
        "small tenant, actor": of(subject=small, actor=frequent),
        "tenant, dead": of(subject=tenant, states=("dead",)),
        "tenant, completed": of(subject=tenant, states=("completed",)),
        "since middle": of(since=middle),
        "window, completed": of(since=middle, until=middle + span, states=("completed",)),
        "window, dead": of(since=middle, until=middle + span, states=("dead",)),
    }
    hour, day, week = timedelta(hours=1), timedelta(hours=24), timedelta(days=7)
    return {
        "one message": one,
        **{f"page: {name}": page(wanted) for name, wanted in pages.items()},
        "page: completed, from the middle": page(of(states=("completed",)), later=0.5),
        "page: dead, from the middle": page(of(states=("dead",)), later=0.5),
        "page: tenant, from the middle": page(of(subject=tenant), later=0.5),
        "page: rare actor, from the middle": page(of(actor=seldom), later=0.5),
        "page: all, near the end": page(of(), later=0.99),
        "what runs": other(query.running_messages),
        "what is delayed": other(query.delayed_messages),
        "what is delayed, 2 pages": delayed_later,
        **{f"count: {name}": number_of(wanted) for name, wanted in counts.items()},
        "counts by state": other(query.state_counts),
        "rates by actor, 1 h": other(lambda: overview.actor_rates(hour)),
        "rates by actor, 2 h": other(lambda: overview.actor_rates(2 * hour)),
        "rates by actor, 24 h": other(lambda: overview.actor_rates(day)),
        "rates by actor, 7 d": other(lambda: overview.actor_rates(week)),
        "windows, 1 h": other(lambda: overview.windows(hour)),
        "windows, 24 h": other(lambda: overview.windows(day)),
        "windows, 7 d": other(lambda: overview.windows(week)),
        "queues": other(overview.queues),
        "workers": other(overview.workers),
        "dead letters by cause": other(query.dead_by_cause),
        "audit": other(overview.audit_log),
        "newest events": events(EventFilter()),
        "newest failures": events(EventFilter(state=State.FAILED)),
        "newest events of an actor": events(EventFilter(actor=ACTORS[3])),
    }


def asked(client: RedisClient, questions: Mapping[str, Ask], runs: int) -> dict[str, Figures]:
    """Asks each question this many times, in turn."""
    chance = random.Random(1)
    times: dict[str, list[float]] = {name: [] for name in questions}
    last: dict[str, Answered] = {}
    for number in range(runs + 1):
        tell(f"asking: {number} of {runs}")
        for name, ask in questions.items():
            began = time.perf_counter()
            last[name] = ask(client, chance)
            # The first also sends the scripts.
            if number > 0:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: {"found": last[name].found, "calls": last[name].calls, **spread(times[name])} for name in questions}


def spread(times: list[float]) -> Figures:
    """Median, the 99th of 100, and the worst."""
    ordered = sorted(times)
    return {
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[math.ceil(len(ordered) * 0.99) - 1],
        "worst_ms": ordered[-1],
    }


def server_times(client: RedisClient, questions: Mapping[str, Ask]) -> dict[str, float]:
    """Milliseconds for which the server is busy with each question."""
    chance = random.Random(2)

    def busy() -> float:
        told = client.info("commandstats")
        return (
            sum(float(told[name]["usec"]) for name in ("cmdstat_evalsha", "cmdstat_xrevrange") if name in told) / 1000
        )

    found = {}
    for name, ask in questions.items():
        before = busy()
        for _ in range(SERVER_RUNS):
            ask(client, chance)
        found[name] = (busy() - before) / SERVER_RUNS
    return found


# ---------------------------------------------------------------------- writing meanwhile


@contextlib.contextmanager
def writing(settings: Settings, client: RedisClient, *, events: int, limit: int | None = None) -> Iterator[Figures]:
    """A worker process that holds attempts and writes events; at the end, its figures have the number of events."""
    first = int(client.get("{worker}:seq") or 0)
    process = subprocess.Popen(
        [
            *(sys.executable, str(LOAD), "write", "--data", str(settings.data_dir)),
            *("--first", str(first), "--events", str(events)),
            *(("--limit", str(limit)) if limit is not None else ()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    figures: Figures = {}
    try:
        if process.stdout.readline() != "ready\n":
            sys.exit("the writer did not begin")
        time.sleep(SETTLE)
        yield figures
        process.stdin.close()
        figures["events_per_second"] = float(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


def ask_in_all_ways(settings: Settings, client: RedisClient, runs: int) -> Figures:
    """All questions: on an idle server, while events are written, and while old messages are removed too."""
    found: Figures = {}
    with writing(settings, client, events=0):
        questions = all_questions(client)
        found["server_ms"] = server_times(client, questions)
        found["quiet"] = asked(client, questions, runs)
    with writing(settings, client, events=EVENTS) as figures:
        found["written"] = asked(client, questions, runs)
    found["writing"] = figures
    before = depth(client, *FINISHED)
    limit = round(depth(client, "completed") * 0.9)
    with writing(settings, client, events=EVENTS, limit=limit) as figures:
        began = time.monotonic()
        # Some messages of questions by id are gone now.
        found["retired"] = asked(client, all_questions(client), runs)
        seconds = time.monotonic() - began
    written = figures["events_per_second"] / 2 * seconds
    found["retiring"] = figures | {"removed_per_second": (before + written - depth(client, *FINISHED)) / seconds}
    return found


# ---------------------------------------------------------------------- latency


def latencies(settings: Settings, client: RedisClient) -> Figures:
    """Milliseconds from `record` to the follower."""
    found: Figures = {}
    with writing(settings, client, events=EVENTS) as figures:
        tell("following")
        found["follower"] = spread(followed(client))
    found["follower"] |= figures
    with web(settings) as url, writing(settings, client, events=EVENTS) as figures:
        tell("following over HTTP")
        found["server-sent events"] = spread(streamed(url))
    found["server-sent events"] |= figures
    return found


def followed(client: RedisClient) -> list[float]:
    waits: list[float] = []
    end = time.monotonic() + LATENCY_SECONDS
    for one in follow_events(client, EventFilter()):
        if one.event is not None and one.event.text.isdecimal():
            waits.append((time.monotonic_ns() - int(one.event.text)) / 1e6)
        if time.monotonic() > end:
            break
    return waits


def streamed(url: str) -> list[float]:
    waits: list[float] = []
    end = time.monotonic() + LATENCY_SECONDS
    with httpx.stream("GET", f"{url}api/events/live", timeout=30) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: ") and (text := json.loads(line[6:]).get("text", "")).isdecimal():
                waits.append((time.monotonic_ns() - int(text)) / 1e6)
            if time.monotonic() > end:
                break
    return waits


@contextlib.contextmanager
def web(settings: Settings) -> Iterator[str]:
    """Runs `worker web` on a free port; yields its address."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "web", "--port", "0", "--json"],
        env=ours | {"WORKER_DATA_DIR": str(settings.data_dir)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


# ---------------------------------------------------------------------- the report


def show_questions(found: Figures) -> None:
    kinds = {"quiet": "nothing else", "written": f"{EVENTS:,} events/s", "retired": "and retention"}
    print(f"\nQuestions: milliseconds, at the median, the 99th of 100 and the worst; ! is over {BOUND_MS:g}")
    print(f"{'':36}{'found':>9}{'calls':>6}{'server':>8}" + "".join(f"{kinds[kind]:>24}" for kind in kinds))
    for name, quiet in found["quiet"].items():
        cells = "".join(
            f"{figure:>7.1f}{'!' if figure > BOUND_MS else ' '}"
            for kind in kinds
            for figure in (found[kind][name][key] for key in ("median_ms", "p99_ms", "worst_ms"))
        )
        print(f"{name:36}{quiet['found']:>9,}{quiet['calls']:>6}{found['server_ms'][name]:>8.2f}{cells}")
    print(
        f"written: {found['writing']['events_per_second']:,.0f} events/s; with retention "
        f"{found['retiring']['events_per_second']:,.0f}, and "
        f"{found['retiring']['removed_per_second']:,.0f} messages/s removed"
    )


def show(report: Figures) -> None:
    print(f"{report['messages']:,} finished messages, {report['machine']}, Python {report['python']}")
    print(f"{report['server']}, append-only file on; load of the machine before: {report['load']:.2f}")
    memory = report["filling"]
    if "bytes_a_message" in memory:
        parts = {"its record": "record", "its subjects": "subjects", "its other indexes": "other_indexes"}
        shown = ", ".join(f"{name} {memory[f'bytes_of_{key}']:,.0f}" for name, key in parts.items())
        print(f"\n{memory['bytes_a_message']:,.0f} bytes a message: {shown};")
        print(
            f"besides the tail {memory['tail_bytes'] / 1e6:,.1f} MB, counters {memory['counter_bytes'] / 1e6:,.1f} MB"
        )
    if "questions" in report:
        show_questions(report["questions"])
    if "latency" in report:
        print(f"\nFrom `record` to the follower, at {EVENTS:,} events/s: milliseconds")
        for name, figures in report["latency"].items():
            shown = ", ".join(f"{figures[key]:,.1f}" for key in ("median_ms", "p99_ms", "worst_ms"))
            print(f"{name:24}{shown} ({figures['events_per_second']:,.0f} events/s)")


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    settings = Settings(data_dir=folder, redis_url=None)
    server = EmbeddedServer(settings)
    client = connect(settings)
    try:
        filling = filled(settings, client, options.messages)
        complete(client)
        told = client.info("server")
        report: Figures = {
            "messages": depth(client, *FINISHED),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "python": platform.python_version(),
            "server": f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}",
            "load": os.getloadavg()[0],
            "filling": filling,
        }
        parts = options.part or PARTS
        if "latency" in parts:
            report["latency"] = latencies(settings, client)
        if "questions" in parts:
            report["questions"] = ask_in_all_ways(settings, client, options.runs)
    finally:
        client.close()
        server.stop()
    tell("")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="number of ended messages")
    parser.add_argument("--runs", type=int, default=200, help="runs of each question")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of the filled history, which is kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file to write the figures to")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = measure(options, folder.absolute())
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
