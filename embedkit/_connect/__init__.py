"""A model by name, such as `openai:text-embedding-3-small`, to an embedder."""
