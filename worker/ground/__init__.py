"""The ground: durations, texts, logs, extras, callables. Imports nothing of ours but the errors."""
