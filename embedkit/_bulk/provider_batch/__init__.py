"""Batch jobs at the provider: at a lower price, within hours."""
