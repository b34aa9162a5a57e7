"""Adapters to frameworks, each with the real framework."""
