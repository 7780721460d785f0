"""Calls the middleware of our broker, and collects what an attempt's end enqueues.

What follows from an attempt is stored with its end. Where it cannot be enqueued, the attempt has failed: it is never
dropped with no more than a line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from dramatiq.middleware import Callbacks, GroupCallbacks, Middleware, MiddlewareError, Pipelines, Retries

from worker.broker.chain import OneOfAKind
from worker.broker.taken import Ending, TakenMessage
from worker.ground.groups import release

_Hook = Callable[..., object]

_ENQUEUE_WHAT_FOLLOWS = (Callbacks, GroupCallbacks, Pipelines)

_FAILED = "Unexpected failure in after_%s of %r."

_ENDS = {"process_message", "skip_message"}
"""The signals after which an attempt ends."""

_ending: ContextVar[TakenMessage | None] = ContextVar("ending", default=None)


def ending_message() -> TakenMessage | None:
    """The message whose attempt is ending in this context (its function has returned), or None.

    What an attempt has left behind has a context of its own, in which nothing ends.
    """
    taken = _ending.get()
    return taken if taken is not None and not taken.ended else None


class Hooks(OneOfAKind):
    """A broker that remembers which middleware has which hook: Dramatiq calls each of them for each, also in vain."""

    def __init__(self, middleware: list[Middleware]) -> None:
        self._hooks: dict[str, _Listeners] = {}
        super().__init__(middleware=middleware)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in Dramatiq
        """Calls the middleware that has this hook."""
        for hook in self._listeners("before_" + signal):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in before_%s of %r.", signal, hook, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in Dramatiq
        """Calls the middleware that has this hook; messages that it enqueues go with the attempt's end."""
        hooks = self._listeners("after_" + signal)
        if signal in _ENDS and isinstance(args[0], TakenMessage):
            self._end(args[0], hooks, signal, kwargs)
            return
        for hook in hooks:
            try:
                hook(self, *args, **kwargs)
            except Exception:
                self.logger.critical(_FAILED, signal, hook, exc_info=True)

    def add_middleware(self, middleware: Middleware, **position: Any) -> None:  # noqa: ANN401 - as in Dramatiq
        """Adds a middleware, in the place of one of its kind if there is one."""
        self._hooks.clear()
        super().add_middleware(middleware, **position)
        self._hooks.clear()

    def _end(self, taken: TakenMessage, hooks: Sequence[_Hook], signal: str, kwargs: dict[str, Any]) -> None:
        taken.ending = Ending()
        token = _ending.set(taken)
        try:
            for place, hook in enumerate(hooks):
                try:
                    hook(self, taken, **kwargs)
                except Exception as error:
                    self.logger.critical(_FAILED, signal, hook, exc_info=True)
                    if "result" in kwargs and isinstance(_owner(hook), _ENQUEUE_WHAT_FOLLOWS):
                        kwargs = {"exception": error}
                        _fail(taken, error, hooks[place + 1 :])
        finally:
            _ending.reset(token)
            if (failure := kwargs.get("exception")) is not None:
                release(failure)
            del failure, kwargs  # its traceback leads to this frame

    def _listeners(self, hook: str) -> Sequence[_Hook]:
        found = self._hooks.get(hook)
        if found is None or found.are_outdated():
            chain = self.middleware if hook.startswith("before_") else self.middleware[::-1]
            found = self._hooks[hook] = _Listeners(hook, chain)
        return found.hooks


class _Listeners:
    """The hooks of one name in a chain of middleware.

    A program may set a hook on an instance of its own, at any time: that is looked at each time.
    """

    __slots__ = ("_name", "_own", "hooks")

    def __init__(self, name: str, chain: Iterable[Middleware]) -> None:
        known = getattr(Middleware, name)
        self._name = name
        self._own = [(vars(one), vars(one).get(name)) for one in chain if not _is_settled(one)]
        self.hooks = [
            getattr(one, name) for one in chain if getattr(type(one), name, None) is not known or name in vars(one)
        ]

    def are_outdated(self) -> bool:
        """Whether a hook was set on an instance since, or taken away."""
        for attributes, was in self._own:  # noqa: SIM110 - each message pays for it
            if attributes.get(self._name) is not was:
                return True
        return False


def _is_settled(middleware: Middleware) -> bool:
    """Whether it is ours or Dramatiq's, on which nobody sets a hook."""
    return type(middleware).__module__.startswith(("worker.", "dramatiq."))


def _fail(taken: TakenMessage, error: Exception, later: Sequence[_Hook]) -> None:
    """Makes the attempt one that has failed with this error; `later` are the hooks that are still to be called."""
    taken.stuff_exception(error)
    if not any(isinstance(_owner(hook), Retries) for hook in later):
        taken.fail()  # nobody comes who could retry it


def _owner(hook: _Hook) -> object:
    return getattr(hook, "__self__", None)
