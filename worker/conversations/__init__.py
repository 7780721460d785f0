"""The built-in application, first room: audio and text of recorded conversations. Plain asyncio."""
