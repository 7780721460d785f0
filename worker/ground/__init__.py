"""The ground: durations, texts, logs, extras. It imports nothing of the package but the errors."""
