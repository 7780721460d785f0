"""The built-in application, second room: searching repositories, conversations and notes. Plain asyncio."""
