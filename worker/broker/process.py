"""The start of a worker process: sets up logging, and looks for the server."""

from __future__ import annotations

import gc
import logging
import sys

import dramatiq
import redis
from dramatiq.broker import Broker
from dramatiq.cli import LOGFORMAT, RET_CONNECT

from worker.errors import ServerUnreachable, WorkerError
from worker.ground.logs import configure_logs_in_place_of, get_logger
from worker.server.client import RedisClient
from worker.server.connection import address, check_server
from worker.server.fitness import check_fitness
from worker.server.layout import check_layout
from worker.server.troubles import trouble
from worker.settings import Settings
from worker.settings.unread import unknown_variables
from worker.threads.os_threads import GEVENT
from worker.threads.unpatched import unpatch

logger = get_logger(__name__)

_OWN = {700, 2_000}
"""CPython's own threshold; the second from 3.13 on."""

_ALLOCATIONS = 10_000
"""Objects that are made, beyond those that have gone, before the collector looks: those of some hundred messages."""


def spare_the_collector() -> None:
    """Makes the collector look less often, and never at the program itself: a message leaves nothing for it to find.

    A program that has set thresholds of its own keeps them.
    """
    gc.freeze()
    if gc.get_threshold()[0] in _OWN:
        gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])


class Process(dramatiq.Middleware):
    """Begins a worker process in order.

    Args:
        settings: The settings of the process.
        client: A client of the broker's server.
    """

    runs_on_loop = True

    def __init__(self, settings: Settings, client: RedisClient) -> None:
        self._settings = settings
        self._client = client

    def after_process_boot(self, broker: Broker) -> None:
        """Sets up logging, and tells of variables that name no setting, and of a server that cannot be used.

        Consumers try again to reach a server.
        Our handler takes the place of the one that Dramatiq's command has given to the root. Where there is none,
        because of `--skip-logging` or because the program has handlers of its own, logging stays as it is.

        Raises:
            SystemExit: The server's data have another layout; the line says what to do.
        """
        if GEVENT:
            unpatch()
        configure_logs_in_place_of(is_dramatiqs, self._settings.log_level, self._settings.log_format)
        spare_the_collector()
        for line in unknown_variables():
            logger.warning(line)
        try:
            check_server(self._client, self._settings)
            check_layout(self._client)
            check_fitness(self._client)
        except redis.RedisError as error:
            logger.error(str(trouble(error, address(self._settings))))  # noqa: TRY400
        except ServerUnreachable as error:
            logger.error(str(error))  # noqa: TRY400 - a line for a person, not a traceback
        except WorkerError as error:
            logger.error(str(error))  # noqa: TRY400
            sys.exit(RET_CONNECT)


def is_dramatiqs(handler: logging.Handler) -> bool:
    """Whether Dramatiq's command has set up this handler."""
    # Its format is the mark: a program that sets up logging has another one.
    return getattr(handler.formatter, "_fmt", None) == LOGFORMAT
