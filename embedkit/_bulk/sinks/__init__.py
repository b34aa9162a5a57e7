"""Where a job writes: files, folders, and stdout."""
