"""What is to be stored of an attempt, put together before it is sent."""

from __future__ import annotations

from worker.broker.committer import Note


def test_notes_of_an_attempt_become_one() -> None:
    """Its start, its events in their order, and its end."""
    note = Note("m", 1, 1, started=True)
    note.absorb(Note("m", 1, 1, lines="a\n", subjects=["x=1"]))
    note.absorb(Note("m", 1, 1, lines="b\n", end=["stream", "entry"], may_lose_events=True))
    assert note == Note(
        "m", 1, 1, started=True, lines="a\nb\n", subjects=["x=1"], end=["stream", "entry"], may_lose_events=True
    )


def test_what_comes_after_the_end_does_not_undo_it() -> None:
    """A thread that an attempt left behind may still record something: the message is acknowledged all the same."""
    note = Note("m", 1, 1, end=["stream", "entry"], may_lose_events=True)
    note.absorb(Note("m", 1, 1, lines="late\n"))
    assert note.end == ["stream", "entry"]
    assert note.may_lose_events
    assert note.lines == "late\n"
