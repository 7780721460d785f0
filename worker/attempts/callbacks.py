"""Dramatiq's `on_success`, `on_failure` and pipelines: an attempt that did not fail never calls `on_failure`.

The error that decides is told in place of a group of errors. A name that is no actor's changes no outcome: the log and
the attempt's end tell it.
"""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown

from worker.attempts.run import current_run
from worker.errors import NoContentFound
from worker.ground.groups import deciding
from worker.ground.logs import get_logger

logger = get_logger(__name__)


class Callbacks(dramatiq.middleware.Callbacks):
    """Sends the messages of `on_success` and `on_failure`."""

    runs_on_loop = True

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Tells `on_failure` the type and text of the error, unless the attempt was skipped, snoozed or cancelled."""
        error = deciding(exception) if exception is not None else None
        if error is not None and not message.failed and _is_no_failure(error):
            return
        option = "on_success" if error is None else "on_failure"
        name = message.options.get(option) or broker.get_actor(message.actor_name).options.get(option)
        if name and name not in broker.actors:
            _tell_unknown(message, f"{option}={name!r}: this worker has no actor of that name, and calls none")
        elif name:
            super().after_process_message(broker, message, result=result, exception=error)  # type: ignore[no-untyped-call]


class Pipelines(dramatiq.middleware.Pipelines):
    """Sends the next message of a pipeline."""

    runs_on_loop = True

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Does what Dramatiq's does, which costs all messages that are in no pipeline as much."""
        if "pipe_target" in message.options:
            super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]


def _tell_unknown(message: MessageProxy, text: str) -> None:
    logger.error(text, id=message.message_id, actor=message.actor_name)
    run = current_run.get()
    if run is not None:
        run.account.add_note(text)


def _is_no_failure(error: BaseException) -> bool:
    run = current_run.get()
    return isinstance(error, NoContentFound | Shutdown) or (run is not None and (run.cancelled or run.is_snoozed))
