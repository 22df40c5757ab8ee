"""Evidence: metrics of rankers and of retrieval on a temporal split."""
