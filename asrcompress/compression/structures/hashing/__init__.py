"""Structures whose weights are fetched from a pool by hashes of their positions."""
