"""Kinds of embedder: over HTTP, a pool of several, one that shares requests, one around another."""
