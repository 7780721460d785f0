"""Models for services: a summarizer, an embedder and a reranker, embedded or behind an HTTP endpoint."""
