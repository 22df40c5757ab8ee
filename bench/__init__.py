"""Measurements: each prints its table and keeps it in bench/out/NAME.json."""
