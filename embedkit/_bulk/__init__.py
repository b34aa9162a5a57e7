"""Files in, files out: what bulk jobs read and write."""
