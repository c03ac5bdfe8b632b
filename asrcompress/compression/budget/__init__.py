"""Budgets: how much each layer gets. `parameters.py` shares out a number of parameters."""

from asrcompress.compression.budget.parameters import (
    Allocation,
    Request,
    alds,
    allocate,
    global_greedy,
    make_options,
    methods,
    uniform,
)
from asrcompress.compression.structures import Allotment

__all__ = ["Allocation", "Allotment", "Request", "alds", "allocate", "global_greedy", "make_options", "methods",
           "uniform"]
