"""The other clients, and one measurement of one of them in a process of its own."""
