"""The chain of a broker's middleware, with one of each kind. It must never hold two that do the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dramatiq import middleware as dramatiqs
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from worker.attempts.retry_policy import RetryPolicy
from worker.attempts.shutdown import ShutdownNotifications
from worker.attempts.time_limit import TimeLimit
from worker.broker.group_counts import CountedGroups
from worker.ground.logs import get_logger
from worker.ground.texts import shown

logger = get_logger(__name__)


class OneOfAKind(Broker):
    """A broker whose middleware take the place of those of their kind."""

    def add_middleware(self, middleware: Middleware, **position: Any) -> None:  # noqa: ANN401 - as in Dramatiq
        """Adds a middleware, in the place of one of its kind if there is one, which a line in the log tells.

        Two are of a kind if one's class is the other's, or derives from it. Dramatiq's own `Retries`, `TimeLimit`,
        `ShutdownNotifications` and `GroupCallbacks` give their values to ours, which know coroutines, our errors and
        the ends of attempts.

        Args:
            middleware: The middleware.
            position: `before` or `after`, a class, as in Dramatiq; else it is added as the last. Dramatiq's class names
                ours, which stands for it.

        Raises:
            TypeError: It is no middleware.
            ValueError: The chain has no middleware of the class that `before` or `after` names.
        """
        if isinstance(middleware, type):
            raise TypeError(f"{middleware.__name__} is a class: write {middleware.__name__}(…)")
        if not hasattr(middleware, "actor_options"):
            raise TypeError(f"{shown(repr(middleware))} is no middleware: write an object of a class of them")
        position = {where: self._standing_for(kind) for where, kind in position.items()}
        known = [one for one in self.middleware if _are_of_a_kind(one, middleware)]
        if not known:
            super().add_middleware(middleware, **position)
            return
        new = _ours(middleware, known[0])
        logger.warning("a middleware takes the place of one of its kind", new=_name(middleware), old=_name(known[0]))
        chain = self.middleware
        # Dramatiq would warn of what is mended here, so it finds none of the kind.
        self.middleware = [one for one in chain if one not in known]
        try:
            super().add_middleware(new, **position)
        except ValueError:
            self.middleware = chain
            raise
        if not any(position.values()):
            self.middleware.remove(new)
            self.middleware.insert(chain.index(known[0]), new)

    def _standing_for(self, kind: Any) -> Any:  # noqa: ANN401 - a class of middleware, or None, as in Dramatiq
        """The class itself; or of ours that which stands for it, if the chain has none of its own."""
        if kind is None or any(isinstance(one, kind) for one in self.middleware):
            return kind
        return next((type(one) for one in self.middleware if _stands_for(one) == kind), kind)


def _are_of_a_kind(old: Middleware, new: Middleware) -> bool:
    if Middleware in {type(old), type(new)}:
        return old is new  # every middleware derives from it
    return isinstance(old, type(new)) or isinstance(new, (type(old), _stands_for(old)))


def _stands_for(ours: Middleware) -> type[Middleware] | tuple[()]:
    """The class of Dramatiq's for which one of ours stands, so that what derives from that is of its kind."""
    if isinstance(ours, TimeLimit):
        return dramatiqs.TimeLimit
    if isinstance(ours, ShutdownNotifications):
        return dramatiqs.ShutdownNotifications
    kinds = (dramatiqs.Callbacks, dramatiqs.Pipelines, dramatiqs.GroupCallbacks)
    return next((kind for kind in kinds if isinstance(ours, kind)), ())


def _ours(new: Middleware, old: Middleware) -> Middleware:
    """The middleware itself; for one of Dramatiq's that cannot do the work of ours, ours with its values."""
    if type(new) is dramatiqs.Retries and isinstance(old, RetryPolicy):
        return RetryPolicy(
            max_retries=new.max_retries,
            min_backoff=new.min_backoff,
            max_backoff=new.max_backoff,
            retry_when=new.retry_when,
        )
    if type(new) is dramatiqs.TimeLimit and isinstance(old, TimeLimit):
        return old.with_limit(new.time_limit)
    if type(new) is dramatiqs.ShutdownNotifications and isinstance(old, ShutdownNotifications):
        return old.with_notice(at_once=new.notify_shutdown)
    if type(new) is dramatiqs.GroupCallbacks and isinstance(old, CountedGroups):
        return old.with_ttl(new.barrier_ttl)
    return new


def in_place_of(theirs: Middleware, ours: Sequence[Middleware]) -> Middleware | None:
    """The one of ours that does the work of Dramatiq's own, with its values; None if that does it itself."""
    if type(theirs) not in dramatiqs.default_middleware:
        return None
    found = next((one for one in ours if type(one) is not type(theirs) and _are_of_a_kind(one, theirs)), None)
    if found is None:
        return None
    made = _ours(theirs, found)
    return found if made is theirs else made


def is_as_ever(middleware: Middleware) -> bool:
    """Whether it is one of those that each broker of Dramatiq's has, with the values that they have by themselves."""
    kind = type(middleware)
    return kind in dramatiqs.default_middleware and _values(middleware) == _values(kind())


def _values(middleware: Middleware) -> dict[str, object]:
    return {name: value for name, value in vars(middleware).items() if isinstance(value, int | float | str | None)}


def _name(middleware: Middleware) -> str:
    kind = type(middleware)
    return f"{kind.__module__}.{kind.__qualname__}"
