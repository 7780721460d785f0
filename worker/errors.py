"""The tree of errors: the package raises some, and a service raises others to decide the next step.

It imports nothing of the package, and neither Dramatiq nor Redis, so that every module and every service can use it.

    WorkerError
    ├── NoContentFound          there is nothing to do: skip, do not retry
    │   └── Unchanged           it was done before, with the same input
    ├── RetryLater(delay)       not now: snooze, and retry after that delay
    │   └── LeaseTaken          another message has the lease
    ├── Fatal                   it will never work: to the dead letters at once
    │   └── ReturnedGenerator   an actor's function returned a generator, of which nothing has run
    ├── ConfigurationError      a setting, an argument or an installation is wrong: the message names the remedy
    │   ├── DeclaredTwice       two actors of a program have the same name
    │   ├── MissingExtra        an optional part of the package is needed and not installed
    │   └── IndexMismatch       another embedder made the search index: it must be rebuilt
    ├── MessageRefused          a message cannot be enqueued: not JSON, or too large
    ├── UnknownActor            no worker knows a message's actor
    ├── UnfitArguments          no worker's actor takes a message's arguments
    ├── ServerUnreachable       no Redis or Valkey answers at the configured address
    │   └── ServerRefused       it answers, and refuses: rights, a password, a full disk, a replica, a cluster
    └── BridgeError             a coroutine cannot run here, or could not be run to its end
        ├── RunningLoopError    called inside a running loop: await instead
        ├── LoopClosedError     the shared loop ended while the call was in flight: retried
        ├── SelfCancelledError  a coroutine cancelled itself
        └── NotUnderGevent      gevent makes it impossible: programs started from a loop or the thread pool
"""

from __future__ import annotations

from datetime import timedelta


class WorkerError(Exception):
    """The base of every error of this package."""


class NoContentFound(WorkerError):
    """There is nothing to work on: the attempt is SKIPPED; the message is acknowledged and not retried."""


class Unchanged(NoContentFound):
    """The same input was processed before and its result stands: SKIPPED, like any `NoContentFound`."""

    def __init__(self, reason: str = "unchanged") -> None:
        super().__init__(reason)


class RetryLater(WorkerError):
    """Retries the message after `delay` instead of after its backoff.

    The attempt is SNOOZED, which is no failure, and counts against the retry budget. The attempt that spends the budget
    is FAILED, and its message is a dead letter.

    Args:
        delay: Seconds, or a `timedelta`; at least 0.
        reason: The text for the history.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        self.delay = _delay_of(delay)
        super().__init__(reason or f"retry in {self.delay.total_seconds():g} s")


def _delay_of(delay: timedelta | float) -> timedelta:
    try:
        found = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"RetryLater(delay={delay!r:.80}): write seconds, such as 30, or a timedelta") from None
    if found < timedelta(0):
        raise ValueError(f"RetryLater(delay={delay!r:.80}): write 0 seconds or more")
    return found


class LeaseTaken(RetryLater):
    """Another message has the lease: SNOOZED, and retried after `delay`, which never uses the retry budget."""

    def __init__(self, name: str, holder: str, delay: timedelta) -> None:
        self.name = name
        self.holder = holder
        super().__init__(delay, f"waits for the lease {name!r}, which message {holder} has")


class Fatal(WorkerError):
    """Fails the message for good: FAILED, no retry, straight to the dead letters."""


class ReturnedGenerator(Fatal):
    """An actor's function returned a generator or an async generator, which nobody iterates: nothing has run."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} returned a generator, which nobody iterates, so nothing has run: "
            "iterate it inside the actor, or return a list"
        )


class ConfigurationError(WorkerError):
    """A setting, an argument or the installation is wrong; the message names it and the remedy."""


class DeclaredTwice(ConfigurationError, ValueError):
    """Two actors of a program have the same name, or a cell of a notebook that declares one has run twice."""

    def __init__(self, name: str, module: str) -> None:
        super().__init__(
            f"an actor {name!r} was declared before, in {module}: give one of the two another name; "
            f"where a cell of a notebook runs again, run `dramatiq.get_broker().actors.pop({name!r})` before it"
        )


class MissingExtra(ConfigurationError):
    """An optional part of the package is needed and not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(f"{needed_for} needs the extra {extra!r}: pip install 'dramatiq-bridge[{extra}]'")


class IndexMismatch(ConfigurationError):
    """Another embedder made the search index: the configured one cannot compare its vectors."""

    def __init__(self, made_by: str, configured: str, folder: str) -> None:
        self.made_by = made_by
        self.configured = configured
        super().__init__(
            f"the search index in {folder} was made by {made_by}, and {configured} is configured: "
            "rebuild it with `worker index rebuild`, or set WORKER_EMBEDDER as it was"
        )


class MessageRefused(WorkerError, TypeError, ValueError):
    """A message that cannot be enqueued: its arguments are not plain JSON, or it is too large; nothing was stored."""


class UnknownActor(WorkerError):
    """No worker knew the message's actor for `WORKER_UNKNOWN_ACTOR`: start one that does, and replay the message."""


class UnfitArguments(WorkerError):
    """No worker's actor took the message's arguments for `WORKER_UNKNOWN_ACTOR`: the text names the argument."""


class ServerUnreachable(WorkerError):
    """No Redis or Valkey answers at the configured address."""


class ServerRefused(ServerUnreachable):
    """The server answers, and refuses; the message has its reason and the remedy."""


class BridgeError(WorkerError, RuntimeError):
    """A coroutine cannot run here, or could not be run to its end."""


class RunningLoopError(BridgeError):
    """The bridge was called inside a running event loop, where it would block that loop."""


class LoopClosedError(BridgeError):
    """The shared loop ended while the call was in flight; the message is retried."""


class SelfCancelledError(BridgeError):
    """A coroutine cancelled itself, without a request from outside."""


class NotUnderGevent(BridgeError):
    """The call cannot work in a process that gevent has patched; the message names the alternative."""
