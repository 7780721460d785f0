"""The filter in the URL of a page, read by the table of filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from worker.history.filters import FilterField, Kind

CURSOR = "cursor"
"""The parameter of a page's URL beside those of its filter."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The filter in a URL, as a person wrote it.

    Attributes:
        fields: The fields of the page's filter.
        given: The URL's values, by the name of the field; without values, the page shows everything.
    """

    fields: Sequence[FilterField]
    given: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, fields: Sequence[FilterField], url: QueryParams) -> Asked:
        """Reads a URL. Empty texts, which forms send too, count as not given."""
        found = {field.name: _texts(field, url.getlist(field.name)) for field in fields}
        # A misspelt name is a filter that cannot be read: without it, far more would match.
        found |= {name: tuple(url.getlist(name)) for name in url if name not in found and name != CURSOR}
        return cls(fields, {name: texts for name, texts in found.items() if texts})

    @property
    def states(self) -> Sequence[str]:
        """The states that the page offers."""
        return next(field.choices for field in self.fields if field.name == "state")

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of a field."""
        return self.given.get(name, ())

    def query(self) -> str:
        """The filter as a query, for a URL of this site or of the API."""
        return urlencode(self.given, doseq=True)

    def body(self) -> dict[str, object]:
        """The filter for the body of an action."""
        lists = {field.name for field in self.fields if field.is_list}
        return {name: list(texts) if name in lists else texts[0] for name, texts in self.given.items()}


def _texts(field: FilterField, texts: Sequence[str]) -> tuple[str, ...]:
    # Words are written in any case here, and as the table has them in the API.
    written = (text.strip().lower() if field.kind is Kind.CHOICE else text.strip() for text in texts)
    return tuple(text for text in written if text)
