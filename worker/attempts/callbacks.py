"""Dramatiq's `on_success` and `on_failure`, with the error that decides in place of a group of errors."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import Broker, MessageProxy

from worker.ground.groups import deciding


class Callbacks(dramatiq.middleware.Callbacks):
    """Sends the messages of `on_success` and `on_failure`."""

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Tells `on_failure` the type and text of the error that decides."""
        error = deciding(exception) if exception is not None else None
        super().after_process_message(broker, message, result=result, exception=error)  # type: ignore[no-untyped-call]
