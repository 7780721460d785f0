"""The primary of a namespace in a cluster: all its keys lie in one slot, and so on one node at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from redis.crc import key_slot

from worker.server.informants import Informants
from worker.server.keys import Namespace
from worker.server.primary import Place


class NodeOfSlot:
    """The primary node of the slot of a namespace, as the nodes of the cluster tell it.

    Args:
        nodes: The nodes of the URL; others are learnt from their answers.
        namespace: The namespace.
    """

    def __init__(self, nodes: Informants, namespace: Namespace) -> None:
        self._nodes = nodes
        self.slot = key_slot(namespace.prefix.encode())
        self.last: Place | None = None

    def find(self) -> Place:
        """Asks the nodes, one after another; see `Primary.find`."""
        self.last = self._nodes.ask(("CLUSTER", "SLOTS"), self._read)
        return self.last

    def _read(self, answer: Any, asked: Place) -> Place:  # noqa: ANN401 - as the server answers
        self._nodes.learn(_place(node, asked) for _, _, *nodes in answer for node in nodes if _is_told(node))
        owners: Iterable[Any] = (nodes for first, last, *nodes in answer if first <= self.slot <= last)
        for primary, *_ in owners:
            if _is_told(primary):
                return _place(primary, asked)
        raise redis.ConnectionError(f"it knows no node that has slot {self.slot}")


def _is_told(node: Any) -> bool:  # noqa: ANN401 - as the server answers
    """Whether its address is known; without a name it is that of the node that was asked."""
    return bool(node[0] != b"?")


def _place(node: Any, asked: Place) -> Place:  # noqa: ANN401 - as the server answers
    host = (node[0] or b"").decode()
    return Place(host or asked.host, int(node[1]))
