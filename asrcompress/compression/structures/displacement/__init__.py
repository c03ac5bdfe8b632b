"""Structures of low displacement rank: circulant and Toeplitz blocks, fixed and learned operators."""
