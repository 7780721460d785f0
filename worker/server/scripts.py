"""Lua scripts on the server: each is one step that happens as a whole or not at all.

A script is sent once and then called by its hash; a server that has lost it gets it again. Its one key is the prefix of
all keys of the client's namespace: it routes the script, and `lua/keys.lua` makes the other keys from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis
from redis import asyncio as redis_asyncio

from worker.server.async_client import AsyncRedisClient
from worker.server.client import RedisClient
from worker.server.line import Line

Argument = str | bytes | int | float

_LUA = files("worker.server").joinpath("lua")


_INCLUDE = "-- include: "


class Script:
    """A script of the folder `lua`, behind the files that its first line includes by name.

    Args:
        name: The file's name without its ending.
        flags: The script's flags in Redis 7, such as `allow-oom`.
    """

    def __init__(self, name: str, *, flags: str = "") -> None:
        first = f"#!lua flags={flags}\n" if flags else ""
        self._text = first + "".join(_parts_of(name).values())
        self._hash = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: RedisClient | Line, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - as the script answers
        """Runs the script on the server.

        Raises:
            redis.RedisError: The server's or the connection's error.
        """
        try:
            return _execute(client, "EVALSHA", self._hash, 1, client.namespace.prefix, *arguments)
        except redis.exceptions.NoScriptError:
            return _execute(client, "EVAL", self._text, 1, client.namespace.prefix, *arguments)

    async def arun(self, client: AsyncRedisClient, arguments: Sequence[Argument]) -> Any:  # noqa: ANN401
        """Runs the script without blocking the running loop."""
        try:
            return await _aexecute(client, "EVALSHA", self._hash, 1, client.namespace.prefix, *arguments)
        except redis.exceptions.NoScriptError:
            return await _aexecute(client, "EVAL", self._text, 1, client.namespace.prefix, *arguments)

    def run_many(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Runs the script several times in one round trip; an answer may be an error of the server.

        Raises:
            redis.RedisError: The connection's error.
        """
        try:
            answers = self._run_in_pipeline(client, calls)
        except UnicodeEncodeError:
            answers = self._run_in_pipeline(client, [_storable(arguments) for arguments in calls])
        return [
            self.run(client, arguments) if isinstance(answer, redis.exceptions.NoScriptError) else answer
            for arguments, answer in zip(calls, answers, strict=True)
        ]

    def _run_in_pipeline(self, client: RedisClient, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for arguments in calls:
            _execute(pipeline, "EVALSHA", self._hash, 1, client.namespace.prefix, *arguments)
        return pipeline.execute(raise_on_error=False)


def _execute(client: redis.Redis | Line, *words: Argument) -> Any:  # noqa: ANN401 - as the server answers
    try:
        return client.execute_command(*words)
    except UnicodeEncodeError:
        return client.execute_command(*_storable(words))


async def _aexecute(client: redis_asyncio.Redis, *words: Argument) -> Any:  # noqa: ANN401 - as the server answers
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    except UnicodeEncodeError:
        return await client.execute_command(*_storable(words))  # type: ignore[no-untyped-call]


def _storable(words: Sequence[Argument]) -> list[Argument]:
    """The arguments with escapes for lone surrogates, which Python makes from bytes that are not UTF-8."""
    return [word.encode("utf-8", "backslashreplace") if isinstance(word, str) else word for word in words]


def _parts_of(name: str) -> dict[str, str]:
    """A file and all its includes, each once, the includes first."""
    text = _LUA.joinpath(f"{name}.lua").read_text()
    parts: dict[str, str] = {}
    first, _, rest = text.partition("\n")
    if first.startswith(_INCLUDE):
        for included in first.removeprefix(_INCLUDE).split(", "):
            parts |= _parts_of(included)
        text = rest
    return parts | {name: text}
