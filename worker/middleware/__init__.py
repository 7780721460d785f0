"""Dramatiq middleware, one file each; `worker.broker` puts them in order."""
