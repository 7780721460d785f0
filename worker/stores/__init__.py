"""The stores of services: conversations and repositories (SQL), objects (files or S3), the search index (LanceDB)."""
