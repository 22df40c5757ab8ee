"""The gate between rows and training: checks, their report, and what data a model was made from."""
