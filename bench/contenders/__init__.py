"""The contenders of `bench/broker.py`: a module for each, with a no-op and `enqueue`; here, how their workers start.

`enqueue(numbers)` sends one message for each number, one after the other. `enqueue_many`, if a contender has it, sends
them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

UNLIMITED = 20_000
"""More messages at once than any measurement has: most of these tools want a number."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool, set up as its documentation recommends for many short messages.

    In the words of its command and the values of its environment, `{processes}`, `{number}` (of the command) and
    `{at_once}` are filled in.

    Attributes:
        name: The contender's name in the results.
        module: The contender's module in this package.
        workers: The words after `python -m`. If no word is `{processes}`, one command is started for each process.
        packages: The distributions with versions in the results; the first names its environment.
        requirements: The requirements of its environment; none if it runs in the benchmark's own.
        python: The oldest Python that it runs on.
        environment: Environment variables of its workers.
        at_once: Messages at once in a process, for many short ones.
        as_shipped: Coroutines at once in a process, as shipped; None if it is not measured with any.
        most: The most at once with which it works.
    """

    name: str
    module: str
    workers: tuple[str, ...]
    packages: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 11)
    environment: Mapping[str, str] = field(default_factory=dict)
    at_once: int = 8
    as_shipped: int | None = None
    most: int = UNLIMITED

    def commands(self, processes: int, at_once: int) -> list[list[str]]:
        """The commands to start for this many worker processes, each without `python -m`."""
        times = 1 if any("{processes}" in word for word in self.workers) else processes
        return [
            [word.format(processes=processes, number=number, at_once=at_once) for word in self.workers]
            for number in range(times)
        ]

    def variables(self, at_once: int) -> dict[str, str]:
        """The environment variables of its processes."""
        return {"BENCH_AT_ONCE": str(at_once)} | {
            name: value.format(at_once=at_once) for name, value in self.environment.items()
        }


CELERY = (
    "celery",
    "--app",
    "contenders.celery_redis",
    "worker",
    "--hostname",
    "bench-{number}",
    "--loglevel",
    "WARNING",
)
DRAMATIQ = ("--processes", "{processes}", "--threads", "{at_once}")
MOST_THREADS = 512

OURS = Contender("ours", "ours", ("dramatiq", "contenders.ours", *DRAMATIQ), ("dramatiq-bridge", "dramatiq", "redis"))
OURS_FAILING = Contender("ours", "ours_failing", ("dramatiq", "contenders.ours_failing", *DRAMATIQ), OURS.packages)
OURS_COROUTINE = Contender(
    "ours-coroutine",
    "ours_coroutine",
    ("dramatiq", "contenders.ours_coroutine", "--processes", "{processes}", "--threads", "8"),
    OURS.packages,
    environment={"WORKER_CONCURRENCY": "{at_once}"},
    at_once=100,
    as_shipped=100,
)
AS_SHIPPED = Contender(
    "dramatiq", "dramatiq_redis", ("dramatiq", "contenders.dramatiq_redis", *DRAMATIQ), ("dramatiq", "redis")
)
ARDIQ = Contender(
    "ardiq",
    "ardiq_redis",
    ("ardiq", "run", "contenders.ardiq_redis:app", "--quiet", "--workers", "{processes}"),
    ("ardiq",),
    ("ardiq>=1.2,<2",),
    python=(3, 12),
    at_once=100,
    as_shipped=16,
)
ARDIQ_AS_SHIPPED = replace(ARDIQ, name="ardiq-16", at_once=16, as_shipped=None)
REPID = Contender(
    "repid",
    "repid_redis",
    ("contenders.repid_redis",),
    ("repid", "redis", "uvloop"),
    ("repid[redis]>=2.1,<3", "hiredis", "typing-extensions", "uvloop"),
    at_once=1000,
    as_shipped=1000,
)
FLUXERA = Contender(
    "fluxera",
    "fluxera_redis",
    (
        "fluxera",
        "worker",
        "contenders.fluxera_redis",
        "--broker",
        "contenders.fluxera_redis:broker",
        "--uvloop",
        "--concurrency",
        "{at_once}",
    ),
    ("fluxera", "redis", "uvloop"),
    ("fluxera>=0.3,<0.4", "hiredis", "uvloop"),
    at_once=128,
    as_shipped=128,
)
ARQ_AND_SAQ = ("arq>=0.28", "saq[redis,hiredis]>=0.26", "typing-extensions")
TASKIQ = ("taskiq[uv]>=0.13", "taskiq-redis>=1.2", "hiredis")


def _taskiq(broker: str) -> Contender:
    words = ("taskiq", "worker", f"contenders.taskiq_{broker}:broker", "--workers", "{processes}")
    return Contender(
        f"taskiq-{broker}",
        f"taskiq_{broker}",
        (*words, "--max-async-tasks", "{at_once}"),
        ("taskiq", "taskiq-redis", "redis", "uvloop"),
        TASKIQ,
        at_once=100,
        as_shipped=100,
    )


def _celery(pool: str, concurrency: str) -> Contender:
    return Contender(
        f"celery-{pool}",
        "celery_redis",
        (*CELERY, "--pool", pool, "--concurrency", concurrency),
        ("celery", "kombu", "redis"),
        ("celery[redis]>=5.6", "hiredis"),
    )


CONTENDERS = (
    OURS,
    Contender("ours-async", "ours_async", ("dramatiq", "contenders.ours_async", *DRAMATIQ), OURS.packages),
    OURS_COROUTINE,
    AS_SHIPPED,
    replace(AS_SHIPPED, name="dramatiq-1000", environment={"dramatiq_queue_prefetch": "1000"}),
    Contender(
        "dramatiq-asyncio",
        "dramatiq_asyncio",
        ("dramatiq", "contenders.dramatiq_asyncio", *DRAMATIQ),
        AS_SHIPPED.packages,
        environment={"dramatiq_queue_prefetch": "1000"},
        as_shipped=8,
        most=MOST_THREADS,
    ),
    ARDIQ,
    ARDIQ_AS_SHIPPED,
    REPID,
    FLUXERA,
    _taskiq("list"),
    _taskiq("stream"),
    Contender(
        "arq",
        "arq_redis",
        ("arq", "contenders.arq_redis.WorkerSettings"),
        ("arq", "redis"),
        ARQ_AND_SAQ,
        at_once=100,
        as_shipped=10,
    ),
    Contender(
        "saq",
        "saq_redis",
        ("saq", "contenders.saq_redis.settings", "--workers", "{processes}"),
        ("saq", "redis"),
        ARQ_AND_SAQ,
        at_once=100,
        as_shipped=10,
        most=1000,  # each holds a connection
    ),
    Contender(
        "huey",
        "huey_redis",
        ("huey.bin.huey_consumer", "contenders.huey_redis.huey", "--workers", "{at_once}", "--worker-type", "thread"),
        ("huey", "redis"),
        ("huey>=3", "redis", "hiredis"),
    ),
    _celery("prefork", "{processes}"),
    _celery("threads", "{at_once}"),
)
QUICK = (OURS_COROUTINE, ARDIQ, ARDIQ_AS_SHIPPED, REPID, FLUXERA)
"""Those that run coroutines without a thread for each, beside ours."""
