"""Programs for the project itself: its site, its release."""
