"""Tests of the caches, each on the real thing."""
