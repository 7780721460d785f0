"""taskiq on a Redis list, which does not acknowledge; with uvloop, which it uses where installed."""

from __future__ import annotations

from taskiq_redis import ListQueueBroker

from contenders.stamps import REDIS_URL
from contenders.taskiq_actor import sender

broker = ListQueueBroker(REDIS_URL)
enqueue = sender(broker)
