"""Reports of tests on their way to the process that prints them."""

from __future__ import annotations

from tests.support.reports import unicode_only


def test_what_a_report_quotes_can_be_sent() -> None:
    """Wherever it stands; the rest stays as it is."""
    assert unicode_only({"longrepr": [("a \ud800", 1, None)], "nodeid": "ö"}) == {
        "longrepr": [("a \\ud800", 1, None)],
        "nodeid": "ö",
    }
