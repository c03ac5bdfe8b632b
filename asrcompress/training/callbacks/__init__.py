"""Callbacks of the training program."""
