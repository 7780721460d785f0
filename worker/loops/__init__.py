"""Event loops for sync callers: calls, interrupts, the watchdog, loop resources, the thread pool."""
