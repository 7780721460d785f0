"""The embedded model: a vector for each token, shipped inside the package `wordllama`, loaded once in each process.

It must never use the network, or change the process's logging.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from worker.errors import MissingExtra


@contextlib.contextmanager
def _some_home() -> Iterator[None]:
    """Gives the process a home folder until the block ends, if it has none: some containers' users do not."""
    try:
        Path.home()
    except RuntimeError:
        own = vars(Path).get("home")  # in Python 3.13 it is a base's
        type.__setattr__(Path, "home", lambda: Path(tempfile.gettempdir()))
    else:
        yield
        return
    try:
        yield
    finally:
        type.__delattr__(Path, "home")
        if own is not None:
            type.__setattr__(Path, "home", own)


# Importing wordllama calls logging.basicConfig, which does nothing as long as the root logger has a handler.
_guard = logging.NullHandler()
logging.getLogger().addHandler(_guard)
try:
    import numpy as np
    from numpy.typing import NDArray

    with _some_home():  # for the place of a download that is never made
        import wordllama
except ImportError as error:
    raise MissingExtra("tasks", "the embedded model") from error
finally:
    logging.getLogger().removeHandler(_guard)


class EmbeddedModel(NamedTuple):
    """The loaded model."""

    tokenizer: Any
    embedding: NDArray[np.float32]

    def tokens(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        # Text by text: the tokenizer's own batches start threads, which do not survive a fork.
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


_lock = threading.Lock()
_loaded: list[EmbeddedModel] = []


def embedded_model() -> EmbeddedModel:
    """The process's one model. The first call loads it, in about 0.3 s: make it in a thread pool."""
    with _lock:
        if not _loaded:
            folder = Path(wordllama.__file__).parent
            model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
            model.tokenizer.no_padding()
            _loaded.append(EmbeddedModel(model.tokenizer, model.embedding))
    return _loaded[0]
