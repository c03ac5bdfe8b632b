from collections.abc import Iterator

import pytest
import tensorly


@pytest.fixture
def numpy_backend() -> Iterator[None]:
    """tensorly-torch, where another test imports it, sets tensorly's backend for the whole process."""
    with tensorly.backend_context("numpy", local_threadsafe=True):
        yield
