"""The built-in application, second room: repositories, conversations and notes that are searched. Plain asyncio."""
