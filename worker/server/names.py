"""The look-up of a server's name within the bound of a call: the system has no bound, so another thread waits for it.

A look-up that takes too long is left behind, and ends when the system gives it up. Under gevent a greenlet waits, and
gevent looks up.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from math import inf

from worker.server.bounds import seconds_left


def addresses_of(host: str, port: int, family: int = 0) -> list[str]:
    """The addresses of a host, the best first; the host itself if it is an address, or this call has no bound.

    Raises:
        OSError: The host has no address.
        TimeoutError: The look-up did not end within the bound of this thread's call.
    """
    left = seconds_left()
    if left == inf or _is_address(host):
        return [host]
    found: list[str] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def look_up() -> None:
        try:
            found.extend(_numbers(host, port, family))
        except BaseException as error:  # noqa: BLE001 - an edge: the waiting thread raises it
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=look_up, name="look-up of a name", daemon=True).start()
    if not ended.wait(left):
        raise TimeoutError(f"the address of {host} was not found within the bound")
    if errors:
        raise errors.pop()  # no cycle through its traceback
    return found


def _numbers(host: str, port: int, family: int) -> list[str]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    as_it_is = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [socket.getnameinfo(address, as_it_is)[0] for *_, address in found]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
