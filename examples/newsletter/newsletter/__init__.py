"""A newsletter: issues written in Markdown, delivered to subscribers through an outbox."""
