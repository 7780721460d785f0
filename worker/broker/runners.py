"""The runner of each actor in a process: its worker threads, the shared loop, or a place of the actor's own there."""

from __future__ import annotations

from collections.abc import Container

import dramatiq
from dramatiq.broker import Broker

from worker.attempts.loop_body import loop_body
from worker.broker.loop_hooks import strangers_to_the_loop
from worker.server.keys import LOOP, THREAD, runner_of_actor
from worker.threads.os_threads import GEVENT

CONCURRENCY = "concurrency"
"""The option of an actor with the most attempts of it that a process runs at once, apart from all others."""


def runner_of(actor: dramatiq.Actor[..., object], runners: Container[str]) -> str:
    """The name of the runner that runs an actor in a process with these runners."""
    if LOOP not in runners or loop_body(actor) is None:
        return THREAD
    own = runner_of_actor(actor.actor_name) if CONCURRENCY in actor.options else LOOP
    return own if own in runners else LOOP


def told_name(name: str, actor: dramatiq.Actor[..., object]) -> str:
    """A name of an actor as the server is told it: an old one with the actor's name behind it."""
    return name if name == actor.actor_name else f"{name}\x1f{actor.actor_name}"


def expected_runner(broker: Broker, name: str) -> str:
    """The runner that an actor of this name will have, as far as its sender can know: in a worker like this process."""
    actor = broker.actors.get(name)
    if actor is None or GEVENT or loop_body(actor) is None or strangers_to_the_loop(broker):
        return THREAD
    return runner_of(actor, (LOOP, runner_of_actor(actor.actor_name)))
