"""Where services keep things: conversations (SQL), objects (files or S3)."""
