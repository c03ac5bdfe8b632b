"""One factor on all steps: the file is as long as it has to be."""

import pytest

import asrcompress
from asrcompress.compression import distil, quantization, target
from asrcompress.compression.fit_steps import fit_steps, hold_steps
from asrcompress.compression.packed import writer
from asrcompress.compression.structures import CannotShrink
from asrcompress.errors import UserError
from tests.compression.models_of_tests import classifier, seen_batches


def test_epr_steps_fit_a_file() -> None:
    small, _ = asrcompress.compress(classifier(), quantization="epr", **{"quantization_options": {"bits": 4.0}})
    asrcompress.compression.record.set_coder(small, "range")
    for factor in (0.7, 1.3):
        wanted = int(factor * writer.length(small))
        fitted = fit_steps(small, wanted)
        assert target.LEAST * wanted <= writer.length(fitted) <= wanted
    with pytest.raises(CannotShrink, match="cannot be reached by wider steps"):
        fit_steps(small, 500)
    with pytest.raises(UserError, match="no tensor has quantization epr"):
        fit_steps(classifier(), 10_000)
    assert writer.length(fit_steps(classifier(), 10**6)) == writer.length(classifier())


def test_held_steps_stay_while_coefficients_are_trained() -> None:
    small, _ = asrcompress.compress(classifier(), quantization="epr")
    batches = seen_batches()
    wanted = [classifier()(x).detach() for x in batches]
    taught = distil.distil(hold_steps(small), classifier(), batches, 3, loss=lambda student, number: (
        student(batches[number]) - wanted[number]).square().mean())
    pairs = zip(quantization.attached(small).values(), quantization.attached(taught).values(), strict=True)
    for before, after in pairs:
        assert before.log_step.equal(after.log_step) and not before.coefficients.equal(after.coefficients)
