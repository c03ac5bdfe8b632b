"""Layers of neighbouring blocks share a weight."""
