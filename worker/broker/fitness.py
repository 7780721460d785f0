"""Tells whether this process can run a message: it knows the actor, which takes the arguments and the options.

It never judges the message itself, which another program, or another version of this one, may well be able to run.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.broker import Broker
from dramatiq.errors import ActorNotFound

from worker.attempts.option_values import check_values
from worker.broker.arguments import check_arguments
from worker.errors import UnfitArguments, UnknownActor


def actor_for(broker: Broker, message: dramatiq.broker.MessageProxy) -> dramatiq.Actor[..., Any]:
    """The actor that runs this message here.

    Raises:
        UnknownActor: The broker knows no actor of this name.
        UnfitArguments: The actor does not take the message's arguments, or no attempt could end with an option.
    """
    try:
        actor = broker.get_actor(message.actor_name)
    except ActorNotFound as error:
        raise UnknownActor(f"no worker here knows actor {message.actor_name}") from error
    try:
        check_arguments(actor, message.args, message.kwargs)
    except TypeError as error:
        raise UnfitArguments(f"no worker here takes these arguments: {error}") from error
    try:
        check_values(message.options)
    except TypeError as error:
        raise UnfitArguments(f"no worker here takes this option: {error}") from error
    return actor
