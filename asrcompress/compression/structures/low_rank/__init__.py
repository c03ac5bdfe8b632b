"""Structures of few numbers per row and column: matrix factorizations and tensor decompositions."""
