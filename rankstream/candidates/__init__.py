"""Retrieval as a part of a process: of the retrieval service, or of the ranker itself."""
