"""One connection for the calls of one thread, without the layers of a client: every message that is sent pays for them.

It never tries a command again, and bounds none by itself: its caller does both.
"""

from __future__ import annotations

import weakref
from typing import Any

import redis
from hiredis import pack_command

from worker.server.keys import Namespace


class Line:
    """A connection from a pool, to which it goes back with the line; for one thread at a time.

    Args:
        namespace: The namespace of its scripts.
        pool: The pool.

    Raises:
        redis.RedisError: The connection cannot be made.
    """

    def __init__(self, namespace: Namespace, pool: redis.ConnectionPool) -> None:
        self.namespace = namespace
        self._connection: Any = pool.get_connection()
        # When the interpreter ends, too, and then before objects that a connection needs are gone.
        weakref.finalize(self, pool.release, self._connection)

    def execute_command(self, *words: str | bytes | int | float) -> Any:  # noqa: ANN401 - as the server answers
        """The server's answer to a command, as it is.

        Raises:
            redis.RedisError: The server's or the connection's error.
        """
        packed = (pack_command(words),)  # type: ignore[arg-type]  # its stub knows one word
        connection = self._connection
        try:
            connection.send_packed_command(packed)
            return connection.read_response()
        except redis.ResponseError:
            raise
        except BaseException:
            # After an interruption in between, the next command would read this one's answer.
            connection.disconnect()
            raise
