"""The revisions, the oldest first; each names the one before it."""
