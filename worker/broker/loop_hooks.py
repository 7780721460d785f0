"""Tells the middleware that may be called on the shared loop. One that might block there keeps actors to threads."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq import middleware as dramatiqs
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.results import Results

HOOKS = (
    "before_delay_message",
    "before_process_message",
    "after_process_message",
    "after_skip_message",
    "before_ack",
    "after_ack",
    "before_nack",
    "after_nack",
    "before_enqueue",
    "after_enqueue",
)
"""The hooks that are called for each message."""

_KNOWN = {
    dramatiqs.AgeLimit,
    dramatiqs.Callbacks,
    dramatiqs.CurrentMessage,
    dramatiqs.Pipelines,
    dramatiqs.Retries,
    Results,
}

_KNOWN_BY_NAME = {
    "dramatiq.middleware.prometheus.Prometheus",
    "sentry_sdk.integrations.dramatiq.SentryMiddleware",
}


def runs_on_loop(middleware: Middleware) -> bool:
    """Whether the loop may call this middleware's hooks: none of them blocks, or keeps something by thread.

    A middleware of somebody else says so with `runs_on_loop = True` in its class. A subclass does not inherit that.
    """
    kind = type(middleware)
    if (
        kind.__dict__.get("runs_on_loop")
        or kind in _KNOWN
        or f"{kind.__module__}.{kind.__qualname__}" in _KNOWN_BY_NAME
    ):
        return True
    return all(getattr(kind, hook) is getattr(Middleware, hook) and hook not in vars(middleware) for hook in HOOKS)


def strangers_to_the_loop(broker: Broker) -> list[str]:
    """The names of the broker's middleware that keep its actors to threads."""
    return [type(one).__qualname__ for one in broker.middleware if not runs_on_loop(one)]


def waits_for_a_server(broker: Broker) -> Callable[[MessageProxy], bool]:
    """Tells whether the hooks after a message wait for a server: they store its result."""
    results = next((one for one in broker.middleware if isinstance(one, Results)), None)

    def waits(message: MessageProxy) -> bool:
        if results is None:
            return False
        of_actor = broker.get_actor(message.actor_name).options.get("store_results", results.store_results)
        return bool(message.options.get("store_results", of_actor))

    return waits
