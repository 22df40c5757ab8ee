"""What an answer costs: the ranker as a user runs it, beside what a user would pick instead."""
