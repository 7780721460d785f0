"""Colours and tables on a terminal. Rich draws them, and is loaded when there is something to draw.

Text of messages is drawn as text: nothing in it steers a terminal or is taken for markup.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from worker.ground.texts import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 10_000


class Styled(NamedTuple):
    """A text, and the colour that it has on a terminal, in rich's words."""

    text: str
    style: str

    def __str__(self) -> str:
        return self.text


Cell = str | Styled
Row = Sequence[Cell]


def is_terminal() -> bool:
    """Whether a person sees the standard output."""
    return sys.stdout.isatty()


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error, as rich writes there; nothing is wrapped in a pipe."""
    from rich.console import Console  # noqa: PLC0415 - it takes as long as a whole command

    out = Console(stderr=stderr, markup=False, highlight=False)
    return out if out.is_terminal else Console(stderr=stderr, markup=False, highlight=False, width=_PIPE_WIDTH)


def line_of(parts: Iterable[Cell]) -> Text:
    """Parts of a line, each in its colour."""
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text.assemble(*((visible(str(part)), part.style if isinstance(part, Styled) else "") for part in parts))


def table_of(headings: Sequence[str], rows: Iterable[Row], *, title: str | None = None, compact: bool = False) -> Table:
    """A table for a terminal; if `compact`, with one line for each row, in which long cells are cut."""
    from rich import box  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(title=title, title_justify="left", title_style="bold", box=None if compact else box.SIMPLE_HEAD)
    if compact:
        table.header_style, table.padding = "dim", (0, 1, 0, 1)
    for number, heading in enumerate(headings):
        # The first cell names the row, and is copied: it is never cut.
        table.add_column(heading, no_wrap=compact or number == 0, overflow="ellipsis" if compact and number else "fold")
    if compact:
        # The longest cell comes last, and is cut first.
        table.expand, table.columns[-1].ratio = True, 1
    for row in rows:
        # Text, not markup: content of messages is shown unchanged.
        table.add_row(*(line_of([cell]) for cell in row))
    return table


@contextlib.contextmanager
def whole_screen() -> Iterator[Callable[[Sequence[RenderableType]], None]]:
    """Takes the whole terminal until the block ends; yields a function that shows something else there."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(console=console(), auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        yield lambda shown: live.update(Group(*shown), refresh=True)
