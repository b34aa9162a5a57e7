"""A finished bulk job looked at: figures of its report, failures, vectors; and a page of them."""
