"""The message server: connections, the embedded server, scripts."""
