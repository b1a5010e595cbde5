"""Weights: loading, adapters, sharding over ranks, saving."""
