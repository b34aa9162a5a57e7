"""Questions and the sentences that answer them, for whoever has no texts at hand: about this package's own subject."""

from __future__ import annotations

PAIRS = (
    ("What happens when a provider says 429?", "A rate limit stops every caller that uses that key until it is over."),
    ("How do I find out what a text would cost?", "The price per million tokens times the tokens of the text."),
    ("Why are my vectors of unit length?", "A normalized vector is divided by its Euclidean length."),
    ("Can a vector be made shorter?", "Matryoshka models are trained so that their first components suffice."),
    ("What takes the least room on disk?", "Packed bits keep one bit per component, eight of them in a byte."),
    ("How are packed bits compared?", "The Hamming distance counts the places in which two rows of bits differ."),
    ("Where does the API key come from?", "Credentials are read from environment variables and never logged."),
    ("What if one text is refused?", "A bad text is marked in its own row, and all the others are embedded."),
    ("Does the order of the input stay?", "Row i of the matrix belongs to the i-th text, whatever arrives first."),
    ("How can the same text be paid for once?", "A cache keeps known vectors, so that nothing is sent twice."),
    ("What if the text is too long?", "A long document is cut into pieces, and their vectors are averaged."),
    ("Is there something that needs no network?", "A small model is part of the package and runs in the process."),
    ("How do I use it from a notebook?", "The sync wrapper works while an event loop is running, as in Jupyter."),
    ("What if the program is killed half-way?", "A journal says which rows are written, and the job goes on there."),
    ("Which words go before a question?", "Some families want a prefix that tells queries and passages apart."),
    ("How many requests are sent side by side?", "Concurrency grows while answers come as fast as they ever did."),
    ("What does a slow server do to a caller?", "A late request is sent a second time, and the first answer counts."),
    ("How can it be watched in production?", "Spans and metrics are exported through OpenTelemetry."),
    ("Is it cheaper to wait a day?", "Batch jobs are done within hours at half of the usual price."),
    ("What do whole numbers lose?", "Eight-bit integers keep nearly all neighbors in a quarter of the room."),
    ("Which vector database can I fill?", "Results are written to LanceDB, Qdrant, PostgreSQL, SQLite or DuckDB."),
    ("How is a new host added?", "A server that speaks a known dialect is one more row of data."),
    ("Is a failed request tried again?", "Passing faults are repeated with growing pauses between the tries."),
    ("How do I find similar sentences?", "Nearest neighbors are those with the largest cosine of their vectors."),
)

__all__ = ["PAIRS"]
