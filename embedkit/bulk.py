"""Bulk jobs: a source, a sink and a journal around `Embedder.stream`."""
