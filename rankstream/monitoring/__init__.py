"""Is what we serve still what we trained? Arrays in, numbers out, summaries that merge."""
