"""`worker recall`: finds code, conversations and notes that answer a question."""

from __future__ import annotations

from typing import Annotated

import typer

from worker import run_async_in_new_loop
from worker.cli.options import AsJson, begin
from worker.cli.output import print_aside, print_json, print_text, print_texts
from worker.cli.terminal import Styled
from worker.recall.recall import MOST_HITS, Hit
from worker.recall.recall import recall as find

_LINES = 12
"""The most lines of a snippet that are printed."""


def recall(
    question: Annotated[str, typer.Argument(help="Words, a name, or a line of code.")],
    repository: Annotated[str | None, typer.Option(help="Only in this repository.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_HITS, help="The most hits.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Find code, conversations and notes that answer a question."""
    begin()
    answer = run_async_in_new_loop(find(question, repository=repository, limit=limit))
    if as_json:
        print_json(answer)
        return
    for hit in answer.hits:
        _print_hit(hit)
    for one in answer.left_out:
        print_aside(f"without {one.part}: {one.reason}")
    if not answer.hits:
        print_aside("nothing was found")


def _print_hit(hit: Hit) -> None:
    place = f"{hit.path}:{hit.start_line}-{hit.end_line}"
    where = f"{hit.repository}/{place}" if hit.repository else f"{hit.kind} {place}"
    about = [f"  {hit.symbol}"] if hit.symbol else []
    changed = [Styled("  (the file has changed since)", "yellow")] if hit.changed else []
    print_texts(Styled(where, "bold cyan"), *about, Styled(f"  {hit.score:.4f}", "dim"), *changed)
    lines = hit.snippet.strip("\n").split("\n")
    more = ["…"] if len(lines) > _LINES else []
    print_text("\n".join(f"    {line}" for line in [*lines[:_LINES], *more]))
