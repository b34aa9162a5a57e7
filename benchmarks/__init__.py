"""Benchmarks, each beside its peers. Not part of the package: run them from a checkout with `python -m benchmarks`."""
