"""Budgets: how much each layer gets. `parameters.py` shares out a number of parameters."""

from asrcompress.compression.budget.parameters import (
    BUDGETS,
    Allocation,
    Request,
    alds,
    allocate,
    fixed,
    global_greedy,
    uniform,
)

__all__ = ["BUDGETS", "Allocation", "Request", "alds", "allocate", "fixed", "global_greedy", "uniform"]
