"""`worker up` and `worker down`: start the workers and stop the embedded server."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from worker.cli.exit_codes import FAILED
from worker.cli.options import AsJson, begin
from worker.cli.output import print_json, print_text
from worker.cli.pools import RunningPools, pools_for, stop_timeout
from worker.ground.logs import get_logger
from worker.server.connection import check_server, connect
from worker.server.embedded import EmbeddedServer
from worker.server.fitness import check_fitness

logger = get_logger(__name__)

_WATCH_EVERY = 0.5


def up(as_json: AsJson = False) -> None:
    """Start the workers, and the embedded server if no server is configured; Ctrl-C stops them."""
    settings = begin(stays=True)
    pools = pools_for(settings)
    client = connect(settings)
    check_server(client, settings)
    check_fitness(client)
    asked_to_stop = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked_to_stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with RunningPools(pools, settings.actors, stop_timeout(settings)) as running:
        if as_json:
            print_json({"state": "up", "pools": [pool.name for pool in running.pools], "exit_code": None})
        code = None
        while not asked_to_stop.wait(_WATCH_EVERY) and code is None:
            code = running.ended()
    if as_json:
        print_json({"state": "stopped", "pools": [pool.name for pool in pools], "exit_code": code or 0})
    if code is not None:
        logger.error("workers ended by themselves: the others were stopped", exit_code=code)
        sys.exit(FAILED)


def down(as_json: AsJson = False) -> None:
    """Stop the embedded server; its data stay."""
    settings = begin()
    stopped = EmbeddedServer(settings).stop()
    if as_json:
        print_json({"stopped": stopped})
    else:
        print_text("stopped the embedded Valkey" if stopped else "no embedded Valkey was running")
