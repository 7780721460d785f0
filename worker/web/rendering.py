"""Renders pages: the templates, and the words and numbers in them.

Text from a message is always escaped: no function here marks text as safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from worker.ground.extras import is_installed
from worker.ground.json_values import iso
from worker.ground.tracebacks import from_the_programs_code
from worker.ground.version import __version__
from worker.history.answers import StoredMessage
from worker.history.states import WAITS, Action, actions_for
from worker.web.security import Visitor

FRAGMENT = "x-fragment"
"""The header with which a page's script asks only for the changing part of a page, without its frame."""

_LONG_TEXT = 160
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def render(request: Request, visitor: Visitor, template: str, *, code: int = 200, **known: object) -> HTMLResponse:
    """A page, or its changing part."""
    layout = "fragment.html" if FRAGMENT in request.headers else "page.html"
    text = _TEMPLATES.get_template(template).render(
        layout=layout,
        base=quote(request.scope.get("root_path", "").rstrip("/")),
        path=path_of(request),
        query=request.url.query,
        visitor=visitor,
        now=datetime.now(UTC),
        version=__version__,
        **known,
    )
    # Lone surrogates, which Python makes from bytes that are not UTF-8, cannot be sent.
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), code, {"vary": FRAGMENT})


def path_of(request: Request) -> str:
    """The path below the application's mount point."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", "")) or "/"


def duration(value: float | timedelta | None) -> str:
    """A duration, or milliseconds, for people: `15 ms`, `9.2 s`, `3 m 20 s`."""
    if value is None:
        return "\N{EN DASH}"
    ms = value / timedelta(milliseconds=1) if isinstance(value, timedelta) else value
    if ms < 1:
        return f"{ms:.1f} ms"
    if ms < 1000:  # noqa: PLR2004 - a second
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    for size, unit, smaller, small in ((_HOUR, "m", 1, "s"), (_DAY, "h", _MINUTE, "m"), (1e12, "d", _HOUR, "h")):
        if seconds < size:
            larger = {"m": _MINUTE, "h": _HOUR, "d": _DAY}[unit]
            return f"{seconds // larger:.0f} {unit} {seconds % larger // smaller:.0f} {small}"
    return "ever"


def number(value: float) -> str:
    """A count with separated thousands."""
    return f"{value:,.0f}"


def compact(value: float) -> str:
    """A count in few characters: `987`, `12K`, `1.1M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= size:
            scaled = value / min(size, 1e3 if unit == "K" else size)
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"  # noqa: PLR2004 - two figures
    return number(value)


def rate(value: float) -> str:
    """A rate per second."""
    digits = 0 if value >= 100 else 1 if value >= 10 or not value else 2  # noqa: PLR2004 - three figures
    return f"{value:,.{digits}f}"


def share(value: float) -> str:
    """A share of 1, in percent."""
    digits = 1 if 0 < value < 0.1 else 0  # noqa: PLR2004 - below ten percent
    return f"{100 * value:.{digits}f} %"


def plain(moment: datetime) -> str:
    """A time for browsers without scripts."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(text: str, longest: int = _LONG_TEXT) -> str:
    """The text's first line, cut if it is long."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def subject(of: Mapping[str, object]) -> str:
    """A subject on one line."""
    return " ".join(f"{key}={value}" for key, value in of.items())


def took(message: StoredMessage) -> float | None:
    """Milliseconds of the last ended attempt, or None."""
    return next((one.duration_ms for one in reversed(message.events) if one.state.is_final and one.duration_ms), None)


def action_name(action: str) -> str:
    """The action's name on a button."""
    return action.replace("_", " ").capitalize()


def link(path: str, **parts: object) -> str:
    """A path with a query."""
    wanted = {key: value for key, value in parts.items() if value not in (None, "", ())}
    return f"{path}?{urlencode(wanted, doseq=True)}" if wanted else path


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("worker.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    own = (duration, number, compact, rate, share, plain, short, subject, took, action_name)
    for one in (*own, iso, from_the_programs_code):
        made.filters[one.__name__] = one
    # For an attribute, where it is escaped like all other text.
    made.filters["json"] = lambda value: json.dumps(value, separators=(",", ":"))
    made.filters["segment"] = lambda text: quote(text, safe="")
    made.globals["link"] = link
    made.globals["actions_for"] = actions_for
    made.globals["waits"] = WAITS
    made.globals["all_actions"] = tuple(Action)
    made.globals["dangerous_actions"] = (Action.CANCEL, Action.PURGE)
    made.globals["with_recall"] = is_installed("recall")
    return made


_TEMPLATES = _environment()
