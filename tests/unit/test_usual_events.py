"""Events of attempts in which nothing else happened are written as all others are."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from worker.history.events import State, StatusEvent, UsualEvent
from worker.history.lines import to_line, usual_line

SUBJECTS = st.dictionaries(
    st.text("abc_", min_size=1), st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    state=st.sampled_from([State.STARTED, State.COMPLETED]),
    at=MOMENTS,
    attempt=st.integers(1, 99),
    queued_ms=st.floats(0, 1e9),
    took=st.floats(0, 1e9),
    subject=SUBJECTS,
)
def test_a_usual_event_has_the_line_of_the_event_that_it_stands_for(
    *,
    state: State,
    at: datetime,
    attempt: int,
    queued_ms: float,
    took: float,
    subject: dict[str, str],
) -> None:
    """Whoever reads the history cannot tell them apart."""
    duration = None if state is State.STARTED else took
    own = "m:1" if state is State.STARTED else "m:1.end"
    event = StatusEvent(
        event=f"greet.{state.value}",
        state=state,
        id=own.replace(":1", f":{attempt}"),
        time=at,
        actor="greet",
        queue="default",
        message_id="m",
        attempt=attempt,
        subject=subject,
        duration_ms=duration,
        queued_ms=queued_ms,
        parent=None if state is State.STARTED else f"m:{attempt}",
    )
    assert usual_line(UsualEvent(state, at.timestamp(), attempt, queued_ms, subject, duration)) == to_line(event)
