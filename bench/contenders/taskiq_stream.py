"""taskiq on a Redis stream, which acknowledges; with uvloop, which it uses where installed."""

from __future__ import annotations

from taskiq_redis import RedisStreamBroker

from contenders.stamps import REDIS_URL
from contenders.taskiq_actor import sender

broker = RedisStreamBroker(REDIS_URL)
enqueue = sender(broker)
