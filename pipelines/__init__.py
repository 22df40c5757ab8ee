"""Batch shells: log or public data -> rows -> models + manifest -> evidence -> registry."""
