"""The contenders of `bench/broker.py`: a module for each, with a no-op and `enqueue`; here, the workers' commands.

`enqueue(numbers)` sends one message for each number, one after the other. `enqueue_many`, if a contender has it, sends
them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
DRAMATIQ = ("--processes", "{processes}", "--threads", "8")


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool, set up as its documentation recommends for many short messages.

    Attributes:
        name: The contender's name in the results.
        module: The contender's module in this package.
        workers: The words after `python -m`. If no word is `{processes}`, one command is started for each process.
        packages: The distributions with versions in the results.
        environment: Environment variables of its workers.
    """

    name: str
    module: str
    workers: tuple[str, ...]
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def commands(self, processes: int) -> list[list[str]]:
        """The commands to start for this many worker processes, each without `python -m`."""
        times = 1 if any("{processes}" in word for word in self.workers) else processes
        return [[word.format(processes=processes, number=number) for word in self.workers] for number in range(times)]


OURS = Contender("ours", "ours", ("dramatiq", "contenders.ours", *DRAMATIQ), ("dramatiq-bridge", "dramatiq"))
OURS_FAILING = Contender("ours", "ours_failing", ("dramatiq", "contenders.ours_failing", *DRAMATIQ), OURS.packages)
AS_SHIPPED = Contender(
    "dramatiq", "dramatiq_redis", ("dramatiq", "contenders.dramatiq_redis", *DRAMATIQ), ("dramatiq",)
)

CONTENDERS = (
    OURS,
    Contender("ours-async", "ours_async", ("dramatiq", "contenders.ours_async", *DRAMATIQ), OURS.packages),
    AS_SHIPPED,
    Contender(
        "dramatiq-1000",
        AS_SHIPPED.module,
        AS_SHIPPED.workers,
        AS_SHIPPED.packages,
        {"dramatiq_queue_prefetch": "1000"},
    ),
    Contender(
        "taskiq-list",
        "taskiq_list",
        ("taskiq", "worker", "contenders.taskiq_list:broker", "--workers", "{processes}"),
        ("taskiq", "taskiq-redis", "uvloop"),
    ),
    Contender(
        "taskiq-stream",
        "taskiq_stream",
        ("taskiq", "worker", "contenders.taskiq_stream:broker", "--workers", "{processes}"),
        ("taskiq", "taskiq-redis", "uvloop"),
    ),
    Contender("arq", "arq_redis", ("arq", "contenders.arq_redis.WorkerSettings"), ("arq",)),
    Contender("saq", "saq_redis", ("saq", "contenders.saq_redis.settings", "--workers", "{processes}"), ("saq",)),
    Contender(
        "huey",
        "huey_redis",
        ("huey.bin.huey_consumer", "contenders.huey_redis.huey", "--workers", "8", "--worker-type", "thread"),
        ("huey",),
    ),
    Contender(
        "celery-prefork",
        "celery_redis",
        (*CELERY, "--pool", "prefork", "--concurrency", "{processes}"),
        ("celery", "kombu"),
    ),
    Contender(
        "celery-threads", "celery_redis", (*CELERY, "--pool", "threads", "--concurrency", "8"), ("celery", "kombu")
    ),
)
