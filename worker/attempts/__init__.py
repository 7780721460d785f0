"""One attempt from begin to end, and the Dramatiq middleware around it."""
