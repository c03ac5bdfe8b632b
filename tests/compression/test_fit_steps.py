"""One factor on all steps: the file is as long as it has to be."""

import pytest

import asrcompress
from asrcompress.compression import quantization
from asrcompress.compression.fit_steps import fit_steps
from asrcompress.compression.packed import writer
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError
from tests.compression.models_of_tests import classifier


def test_epr_steps_fit_a_file() -> None:
    small, _ = asrcompress.compress(classifier(), quantization="epr", **{"quantization_options": {"bits": 4.0}})
    asrcompress.compression.record.set_coder(small, "range")
    for factor in (0.7, 0.97):
        wanted = int(factor * writer.length(small))
        assert 0.99 * wanted <= writer.length(fit_steps(small, wanted)) <= wanted
    roomy = fit_steps(small, 2 * writer.length(small))
    for before, after in zip(*(quantization.attached(one).values() for one in (small, roomy)), strict=True):
        assert before.log_step.equal(after.log_step)
    with pytest.raises(CannotShrink, match="cannot be reached by wider steps"):
        fit_steps(small, 500)
    with pytest.raises(UserError, match="no tensor has quantization epr"):
        fit_steps(classifier(), 10_000)
    assert writer.length(fit_steps(classifier(), 10**6)) == writer.length(classifier())
