"""The server that answers, in C, and how it is started."""
