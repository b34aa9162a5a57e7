"""What a job reads: files of every format, and rows that a program has."""
