"""Dramatiq's `on_success`, `on_failure` and pipelines: an attempt that did not fail never calls `on_failure`.

The error that decides is told in place of a group of errors.
"""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware.shutdown import Shutdown

from worker.attempts.run import current_run
from worker.errors import NoContentFound
from worker.ground.groups import deciding


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
        if error is None or message.failed or not _is_no_failure(error):
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


def _is_no_failure(error: BaseException) -> bool:
    run = current_run.get()
    return isinstance(error, NoContentFound | Shutdown) or (run is not None and (run.cancelled or run.is_snoozed))
