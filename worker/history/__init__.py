"""The history: its events, the writer of events (`writer`), and the questions (`query`)."""
