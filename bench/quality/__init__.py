"""What the models are worth on public logs, beside references, over seeds."""
