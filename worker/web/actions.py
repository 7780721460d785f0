"""The actions as JSON; `worker.operations.actions` takes them, and writes the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Response
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    create_model,
    model_validator,
)

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger
from worker.history.filters import MESSAGE_FIELDS, MessageFilter, read_message_filter
from worker.history.states import Action
from worker.loops.thread_pool import run_in_thread_pool
from worker.operations import actions, actors
from worker.operations.answers import Done, Enqueued, Turned
from worker.operations.audit import ENQUEUE, audit
from worker.settings import Settings
from worker.web.answers import told
from worker.web.dependencies import Acting, Client, Held
from worker.web.parameters import Name, bounds_of, value_of
from worker.web.problems import NOT_FOUND, WITH_BODY, Problem
from worker.web.resources import Resources

logger = get_logger(__name__)

router = APIRouter(tags=["actions"], responses=WITH_BODY)

_MOST_IDS = 1_000

Time = Annotated[str, Field(min_length=1, max_length=100, examples=["10m"])] | None
"""A time as people write it."""

QueueName = Annotated[str, Path(min_length=1, max_length=200, description="The queue's name.")]


class _Body(BaseModel):
    # A misspelt name must be an error: a filter without it would match more.
    model_config = ConfigDict(extra="forbid", frozen=True)


_FIELDS: dict[str, Any] = {field.name: (value_of(field), Field(**bounds_of(field))) for field in MESSAGE_FIELDS}


class Filter(create_model("FilterFields", __base__=_Body, **_FIELDS)):  # type: ignore[misc]  # made of the table
    """Selects the messages that match every given condition."""

    def read(self) -> MessageFilter:
        """Reads the filter."""
        return read_message_filter(self.model_dump())


class Order(_Body):
    """The messages of an action: by their ids, or by a filter."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["ids"], "not": {"required": ["up_to"]}}, {"required": ["filter"]}]},
        extra="forbid",
        frozen=True,
    )

    ids: Annotated[list[Name], Field(min_length=1, max_length=_MOST_IDS)] = []
    filter: Filter = Filter()
    up_to: StrictInt | None = Field(
        None,
        ge=0,
        description="With a filter: that of a dry run, to change no message that it has not counted.",
    )
    dry_run: StrictBool = Field(False, description="Only shows the effect, without acting.")
    confirm: StrictBool = Field(False, description=f"Needed for more than {actions.ASK_ABOVE} messages.")

    @model_validator(mode="after")
    def _has_targets(self) -> Order:
        if len({"ids", "filter"} & self.model_fields_set) != 1:
            raise ValueError("give either ids or a filter; an empty filter is everything")
        if {"ids", "up_to"} <= self.model_fields_set:
            raise ValueError("up_to goes with a filter: leave it out beside ids")
        return self

    def targets(self) -> actions.Targets:
        """The messages of the action."""
        if self.ids:
            return self.ids
        wanted = self.filter.read()
        return wanted if self.up_to is None else actions.Counted(wanted, self.up_to)


class NewMessage(_Body):
    """A message for an actor."""

    actor: Name
    args: list[JsonValue] = []
    kwargs: dict[str, JsonValue] = {}
    key: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        None, description="While a message with this key waits or runs, no other is enqueued."
    )
    ttl: Time = Field(None, description="The time after which the key is free, from when the message is due.")
    until: Literal["start", "end"] | None = Field(None, description="When the message gives its key up.")
    delay: Time = Field(None, description="The shortest time for which the message waits.")
    at: AwareDatetime | None = Field(None, description="The time before which it does not run.")
    priority: Literal["high", "normal", "low"] | None = None
    queue_name: Name | None = Field(None, description="Its queue, in place of its actor's.")
    message_id: Name | None = Field(None, description="Its id: it is enqueued only if this was never seen.")
    time_limit: Time = Field(None, description="The time that an attempt may take.")
    max_age: Time = Field(None, description="The time after which it does not begin any more.")
    max_retries: Annotated[int, Field(ge=0, le=1000)] | None = None
    min_backoff: Time = Field(None, description="The shortest delay before the first retry.")
    max_backoff: Time = Field(None, description="The longest delay before a retry.")

    def options(self) -> dict[str, Any]:
        """The options of `Actor.configure`."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name not in ("actor", "args", "kwargs")
        }


@router.post(
    "/actions/{action}",
    response_model=Done,
    responses={409: {"model": Problem, "description": f"More than {actions.ASK_ABOVE} messages, and not confirmed."}},
)
async def act(action: Action, order: Order, visitor: Acting, client: Client) -> Response:
    """Replays or purges dead letters, cancels messages, or runs delayed ones now.

    Messages in a state for which the action is not valid stay unchanged.
    """
    targets = order.targets()
    if order.dry_run or not order.confirm:
        found = await run_in_thread_pool(actions.preview, client, action, targets)
        if order.dry_run:
            return told(Done.of_preview(found))
        if found.count > actions.ASK_ABOVE:
            raise HTTPException(409, f'this would change {found.count} messages: repeat it with "confirm": true')
        targets = found.targets if isinstance(targets, MessageFilter) else targets
    outcome = await run_in_thread_pool(actions.ACTIONS[action], client, targets, by=visitor.name)
    return told(Done.of(outcome, most=_MOST_IDS))


@router.post("/queues/{queue:path}/pause", response_model=Turned, responses=NOT_FOUND)
async def pause(queue: QueueName, visitor: Acting, client: Client) -> Response:
    """Pauses a queue: workers finish its messages that they hold, and take no new ones."""
    return await _turn(queue, visitor.name, client, paused=True)


@router.post("/queues/{queue:path}/resume", response_model=Turned, responses=NOT_FOUND)
async def resume(queue: QueueName, visitor: Acting, client: Client) -> Response:
    """Ends a queue's pause: workers take its messages again."""
    return await _turn(queue, visitor.name, client, paused=False)


async def _turn(queue: str, by: str, client: Client, *, paused: bool) -> Response:
    try:
        changed = await run_in_thread_pool(actions.pause if paused else actions.resume, client, queue, by=by)
    except ConfigurationError as error:
        raise HTTPException(404, str(error)) from error
    return told(Turned(queue, paused, changed))


@router.post("/messages", status_code=201, responses=NOT_FOUND)
async def enqueue(new: NewMessage, visitor: Acting, held: Held) -> Enqueued:
    """Enqueues a message for an actor of `WORKER_ACTORS`."""
    return await run_in_thread_pool(send, new, held, action=ENQUEUE, target=new.actor, by=visitor.name)


def send(new: NewMessage, held: Resources, *, action: str, target: str, by: str) -> Enqueued:
    """Enqueues a message, and writes it into the audit log as this action.

    Raises:
        HTTPException: There is no such actor.
        ConfigurationError: The actor does not take these arguments.
        WorkerError: The message is refused, or the server does not answer.
    """
    enqueued = _enqueue(new, held.settings)
    audit(held.client, action, target, [enqueued.message_id] if enqueued.is_new else [], by=by)
    said = "a message was enqueued" if enqueued.is_new else "no message was enqueued: another has its unique key"
    logger.info(said, message_id=enqueued.message_id, actor=enqueued.actor, by=by)
    return enqueued


def _enqueue(new: NewMessage, settings: Settings) -> Enqueued:
    try:
        actor = actors.find_actor(settings, new.actor)
    except ConfigurationError as error:
        raise HTTPException(404, str(error)) from error
    return Enqueued.of(actors.enqueue(actor, new.args, new.kwargs, new.options()))
