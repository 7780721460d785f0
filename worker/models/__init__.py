"""What services ask: a summarizer, an embedder, a reranker; embedded, or over HTTP."""
