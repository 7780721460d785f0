"""Real threads, under gevent too."""
