"""One directory for each result."""
