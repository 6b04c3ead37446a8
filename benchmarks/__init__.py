"""Measured claims: each module prints a table and can write JSON. ``python -m benchmarks`` runs all of them."""
