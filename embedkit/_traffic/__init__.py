"""When the next request may leave: retries, quotas, concurrency. Numbers and waiting; no body is read here."""
