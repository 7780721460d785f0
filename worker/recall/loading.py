"""The slow imports of a search, done before the first question comes."""

from __future__ import annotations

from worker.models.embedded import embedded_model
from worker.models.settings import ModelSettings
from worker.stores.lance import load_lancedb


def load_models() -> None:
    """Loads the libraries and the embedded models that a search uses. Blocks for about a second.

    Raises:
        MissingExtra: The extra `recall` is not installed.
    """
    load_lancedb()
    if ModelSettings.in_force().embedder == "wordllama":
        embedded_model()
