"""Texts to batches to one matrix. Knows no HTTP."""
