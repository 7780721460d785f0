"""Objects (audio files, manifests), in a folder by default, or in S3, as `WORKER_OBJECTS_URL` says.

An object is written whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as Backend

from worker.errors import ConfigurationError, WorkerError
from worker.ground.secrets import mask_secrets
from worker.loops.loop_resources import loop_resource
from worker.loops.thread_pool import run_in_thread_pool
from worker.stores.settings import StoreSettings

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, RetryConfig


_PATIENCE = timedelta(seconds=30)
"""The time in which a request to S3 is tried again. One request takes 30 s at most, unless `AWS_TIMEOUT` says more."""

_MOST_RETRIES = 1_000
"""More than `_PATIENCE` has room for."""

_SHOWN = 500
"""The most characters of an error that are told."""


class ObjectsFailed(WorkerError):
    """The object store cannot be read or written: its server is away or refuses, or the disk does."""


class ObjectStore:
    """Objects by key, such as `merged/<conversation>/<digest>.mp3`.

    Every method raises `ObjectsFailed` if the store fails, and `FileNotFoundError` if the object does not exist.
    """

    def __init__(self, backend: Backend, url: str) -> None:
        self._backend = backend
        self._url = url.rstrip("/")
        self._folder = _folder(url)

    def location(self, key: str) -> str:
        """The object's path or URL, for people."""
        return str(self._folder / key) if self._folder is not None else f"{self._url}/{key}"

    async def exists(self, key: str) -> bool:
        """Whether the object exists."""
        try:
            with self._failures_told(key):
                await obstore.head_async(self._backend, key)
        except FileNotFoundError:
            return False
        return True

    async def read(self, key: str) -> bytes:
        """The content of a small object.

        Raises:
            FileNotFoundError: The object does not exist.
        """
        with self._failures_told(key):
            return bytes(await (await obstore.get_async(self._backend, key)).bytes_async())

    async def write(self, key: str, content: bytes | Path) -> None:
        """Stores bytes, or a file's content, under this key."""
        with self._failures_told(key):
            await obstore.put_async(self._backend, key, content)

    async def fetch(self, key: str, into: Path) -> Path:
        """The object as a file: the stored file itself, or a copy in the folder `into` if it is in S3.

        Raises:
            FileNotFoundError: The object does not exist.
        """
        target = into / (hashlib.sha256(key.encode()).hexdigest()[:32] + Path(key).suffix)
        with self._failures_told(key):
            if self._folder is not None:
                await obstore.head_async(self._backend, key)
                return self._folder / key
            answer = await obstore.get_async(self._backend, key)
            file = await run_in_thread_pool(target.open, "wb")
            try:
                async for part in answer.stream():
                    await run_in_thread_pool(file.write, part)
            finally:
                await run_in_thread_pool(file.close)
        return target

    @contextmanager
    def _failures_told(self, key: str) -> Iterator[None]:
        """Turns errors of the store into one typed error with one line of text."""
        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None:
                raise  # a file of this machine, not an object
            if "NoSuchBucket" in str(error):
                where = self.location(key)
                said = f"the object {where} cannot be read or written: there is no such bucket; see WORKER_OBJECTS_URL"
                raise ObjectsFailed(mask_secrets(said)) from error
            raise FileNotFoundError(mask_secrets(f"there is no object {self.location(key)}")) from error
        except (BaseError, OSError) as error:
            # Below that, the library shows its structures, some dozen lines of them.
            said = " ".join(str(error).partition("\n\nDebug source:")[0].split())[:_SHOWN]
            where = self.location(key)
            raise ObjectsFailed(mask_secrets(f"the object {where} cannot be read or written: {said}")) from error


@loop_resource
async def object_store() -> AsyncIterator[ObjectStore]:
    """The configured object store.

    Raises:
        ConfigurationError: `WORKER_OBJECTS_URL` cannot be read.
    """
    url = StoreSettings.in_force().objects_url.get_secret_value()
    try:
        folder = _folder(url)
        # Making the folder is one or two system calls; a listing or a copy would need the thread pool.
        backend = LocalStore(folder, mkdir=True) if folder is not None else _s3(url)
    except (BaseError, OSError, ValueError) as error:
        said = f"WORKER_OBJECTS_URL={url}: {str(error).splitlines()[0]}; write file:///folder or s3://bucket"
        raise ConfigurationError(mask_secrets(said)) from error
    yield ObjectStore(backend, url)


def _s3(url: str) -> Backend:
    # The last of many tries comes when the time is over: a server may refuse for most of it.
    waits: BackoffConfig = {"init_backoff": _PATIENCE / 300, "max_backoff": _PATIENCE / 10}
    retries: RetryConfig = {"max_retries": _MOST_RETRIES, "retry_timeout": _PATIENCE, "backoff": waits}
    # Options of the client would put those of the environment out of force.
    return from_url(url, retry_config=retries)


def _folder(url: str) -> Path | None:
    """The folder of a file URL, or None for another URL.

    Raises:
        ValueError: The URL does not name a folder of this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError("it is not an absolute path on this machine")
    folder = Path(unquote(parts.path))
    if folder.exists() and not folder.is_dir():
        raise ValueError("it is a file")
    return folder
