"""Run async services as Dramatiq background work."""
