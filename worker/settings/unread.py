"""Finds variables that nothing reads, most of them misspelt; it never imports the built-in application.

Variables that Kubernetes sets for its services are passed over: nobody has written them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from worker.settings.environment import is_told, variable, variables_of_ours
from worker.settings.groups import Doubt, SettingsGroup

OF_THE_APPLICATION = (
    *("database_url", "objects_url", "index_dir"),
    *("merge_timeout", "merge_file_timeout", "summary_words"),
    *("recall_timeout", "sync_batch", "sync_max_file_bytes", "repository_roots"),
    *("summarizer", "summarizer_url", "summarizer_model", "summarizer_api_key"),
    *("summarizer_timeout", "summarizer_context_words"),
    *("embedder", "embedder_url", "embedder_model", "embedder_dimensions", "embedder_api_key", "embedder_timeout"),
    *("reranker_url", "reranker_model", "reranker_api_key", "reranker_timeout"),
)
"""The settings of the built-in application, which a program that uses only the framework does not import."""

_ALIKE = 0.7
"""The share of letters, in order, that a misspelt name has in common with the right one."""


def variables_without_effect(groups: Iterable[type[SettingsGroup]]) -> Iterator[Doubt]:
    """Yields the variables, of the environment and of `.env`, that nothing reads.

    Each names no setting, or a setting of one of these groups that is not in use.
    """
    group_of = {variable(name): group for group in groups for name in group.model_fields}
    known = _known()
    for name, place in variables_of_ours().items():
        group = group_of.get(name)
        if name not in known:
            yield Doubt(f"{name}{place} names no setting", _remedy(_nearest(name, known)))
        elif group is not None and not group.is_in_use():
            yield Doubt(
                f"{name}{place} has no effect without the extra {group.extra!r}",
                f"pip install 'dramatiq-bridge[{group.extra}]', or unset it",
            )


def unknown_variables() -> Iterator[str]:
    """Yields lines on the variables, of the environment or of `.env`, that name no setting.

    Each that resembles one has a line; all others share one, for a program may have variables of its own. A process
    that began this one may have told them before.
    """
    if is_told():
        return
    known = _known()
    others = []
    for name, place in variables_of_ours().items():
        if name in known:
            continue
        if (nearest := _nearest(name, known)) is not None:
            yield f"{name}{place} names no setting: {_remedy(nearest)}"
        else:
            others.append(f"{name}{place}")
    if len(others) == 1:
        yield f"{others[0]} names no setting: {_remedy(None)}"
    elif others:
        yield f"{', '.join(others)} name no settings: unset them, or see `worker config` for the names"


def _known() -> set[str]:
    names = {name for group in SettingsGroup.__subclasses__() for name in group.model_fields}
    return {variable(name) for name in names.union(OF_THE_APPLICATION)}


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # Without the prefix, which is alike in all of them.
    prefix = variable("")
    found = get_close_matches(name.removeprefix(prefix), [one.removeprefix(prefix) for one in known], 1, _ALIKE)
    return variable(found[0]) if found else None


def _remedy(nearest: str | None) -> str:
    return f"write {nearest}, or unset it" if nearest else "unset it, or see `worker config` for their names"
