"""Consistency against scipy's relative entropy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from asrcompress.errors import UserError
from asrcompress.training import criteria
from asrcompress.training.criteria.consistency import Consistency, ConsistencyOptions
from asrcompress.training.options import AugmentationOptions, SpecAugmentOptions

VOCAB = 5
LENGTHS = torch.tensor([8, 6])
TARGETS, TARGET_LENGTHS = torch.tensor([[1, 2, 2], [3, 4, 0]]), torch.tensor([3, 2])


def view(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 8, VOCAB, generator=generator, dtype=torch.float64).log_softmax(2)


def call(criterion: Consistency, *views: Tensor) -> dict[str, Tensor]:
    stacked = (torch.cat(views), *(one.repeat(len(views), *[1] * (one.dim() - 1))
                                   for one in (LENGTHS, TARGETS, TARGET_LENGTHS)))
    return criterion(*stacked)


def built(hard: str = "ctc", progress: float = 1.0, **options: float) -> Consistency:
    criterion = criteria.build("consistency", VOCAB, [[1, 2, 2], [3, 4]], hard=hard, **options)
    assert isinstance(criterion, Consistency)
    criterion.progress = progress
    return criterion.train()


@pytest.mark.parametrize("hard", ["ctc", "lfmmi"])
def test_loss_is_the_mean_of_both_views_and_of_both_divergences(hard: str) -> None:
    one, two = view(0), view(1)
    result = call(built(hard, weight=0.3), one, two)
    alone = criteria.build(hard, VOCAB, [[1, 2, 2], [3, 4]])
    hards = [alone(each, LENGTHS, TARGETS, TARGET_LENGTHS)["loss"] for each in (one, two)]
    apart = [(entropy(p[n, t].exp(), q[n, t].exp()) + entropy(q[n, t].exp(), p[n, t].exp())) / 2
             for p, q in ((one, two),) for n in range(2) for t in range(LENGTHS[n])]
    torch.testing.assert_close(result["hard"], sum(hards) / 2)
    np.testing.assert_allclose(result["consistency"], np.mean(apart), rtol=1e-10)
    torch.testing.assert_close(result["loss"], result["hard"] + 0.3 * result["consistency"])


def test_identical_views_agree() -> None:
    one = view(0)
    result = call(built(), one, one)
    assert result["consistency"].item() == 0.0 and torch.equal(result["loss"], result["hard"])


def test_the_other_view_gets_no_gradient() -> None:
    """The gradient of the agreement in y1 is that of KL(y2 || y1) / 2 with y2 fixed: (p1 - p2) / 2 per frame."""
    one, two = view(0).requires_grad_(), view(1).requires_grad_()
    gradients = []
    for weight in (1.0, 0.0):
        result = call(built(weight=weight), one.log_softmax(2), two.log_softmax(2))
        gradients.append(torch.autograd.grad(result["loss"], (one, two)))
    mask = (torch.arange(8) < LENGTHS[:, None])[..., None]
    expected = (one.exp() - two.exp()).detach() * mask / 2 / LENGTHS.sum()
    for side, sign in ((0, 1), (1, -1)):
        torch.testing.assert_close(gradients[0][side] - gradients[1][side], sign * expected)


def test_the_weight_rises_and_held_out_utterances_have_one_view() -> None:
    one, two = view(0), view(1)
    for progress, weight in ((0.0, 0.0), (0.05, 0.1), (0.1, 0.2), (0.7, 0.2)):
        result = call(built(progress=progress), one, two)
        torch.testing.assert_close(result["loss"], result["hard"] + weight * result["consistency"])
    assert call(built(warmup=0.0, progress=0.0), one, two)["loss"] == call(built(), one, two)["loss"]
    held_out = call(built().eval(), one)
    torch.testing.assert_close(held_out["loss"], criteria.build("ctc", VOCAB)(one, LENGTHS, TARGETS,
                                                                             TARGET_LENGTHS)["loss"])


def test_views_have_more_time_masks() -> None:
    given = AugmentationOptions(spec_augment=SpecAugmentOptions(time_masks_per_second=0.4, time_fraction=0.5))
    more = built().augmentation(given)
    assert more == replace(given, spec_augment=replace(given.spec_augment, time_masks_per_second=1.0,
                                                       time_fraction=1.0))
    assert built().augmentation(None) is None and criteria.build("ctc", VOCAB).augmentation(given) is given


def test_errors() -> None:
    with pytest.raises(UserError, match="criterion consistency: weight is at least 0"):
        ConsistencyOptions(weight=-1)
