"""Adapters to other libraries: a file each, over the public names of embedkit only; each has an extra of its own."""
