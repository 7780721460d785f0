"""The slow imports of a search, done before the first question comes."""

from __future__ import annotations

from worker.models.embedded import embedded_model
from worker.settings import Settings
from worker.stores.lance import load_lancedb


def load_models(settings: Settings) -> None:
    """Loads the libraries and the embedded models that a search uses. Blocks for about a second.

    Raises:
        MissingExtra: The extra `recall` is not installed.
    """
    load_lancedb()
    if settings.embedder == "wordllama":
        embedded_model()
