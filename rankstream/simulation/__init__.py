"""Users whose truth is known: what they like, what they look at, and what a slate is worth.

Pure: a generator of random numbers is an argument. Only the demo, tests and bench use it.
"""
