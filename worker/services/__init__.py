"""The async work itself: plain asyncio; no Dramatiq, no Redis."""
