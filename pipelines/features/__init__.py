"""Features offline: training rows by replay, and the skew of what was served."""
