"""The ground: durations, texts, logs, extras, callables. It imports nothing of the package but the errors."""
