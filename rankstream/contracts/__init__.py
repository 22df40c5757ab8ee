"""What the bytes of `rankstream.pb` mean: ranges, units, invariants."""
