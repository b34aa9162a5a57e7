"""Keeps vectors that were paid for: asked before a text is sent."""
