"""Seconds that each training criterion takes, forward and backward, for 160 s of audio (4,000 subsampled frames).

Run: python benchmarks/criteria.py [--threads 2] [--device cpu]
CTC is the peer: LF-MMI contains it (its numerator), and adds the sum over all phone sequences. Of criteria with a
teacher it is the teacher's part alone, without the network of the teacher.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from asrcompress.training import criteria

UTTERANCES, FRAMES, LABELS, TOKENS = 16, 250, 90, 40


def taught(name: str, sequences: list[list[int]]) -> Callable[..., dict[str, Tensor]]:
    """The teacher's part of a criterion, for a teacher of random posteriors that are as flat as the student's."""
    criterion = criteria.family(name)({}, TOKENS, None, sequences)

    def loss(log_probs: Tensor, *batch: Tensor) -> dict[str, Tensor]:
        criterion.to(log_probs.device)
        return {"loss": criterion.soft([log_probs.detach().roll(1, 1)], log_probs, *batch).mean()}
    return loss


def seconds(criterion: Callable[..., dict[str, Tensor]], peak: float, device: str, rounds: int = 7) -> float:
    """Median time on random posteriors; `peak` multiplies the logits (large: nearly one-hot)."""
    generator = torch.Generator().manual_seed(0)
    logits = (peak * torch.randn(UTTERANCES, FRAMES, TOKENS, generator=generator)).to(device).requires_grad_()
    targets = torch.randint(1, TOKENS, (UTTERANCES, LABELS), generator=generator).to(device)
    lengths, target_lengths = torch.full((UTTERANCES,), FRAMES), torch.full((UTTERANCES,), LABELS)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        criterion(logits.log_softmax(-1), lengths, targets, target_lengths)["loss"].backward()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sequences = torch.randint(1, TOKENS, (300, LABELS), generator=torch.Generator().manual_seed(1)).tolist()
    built = {
        "CTC": criteria.build("ctc", TOKENS),
        "CTC with prior": criteria.build("ctc", TOKENS, prior_scale=0.3),
        "LF-MMI": criteria.build("lfmmi", TOKENS, sequences),
        **{name: taught(name, sequences) for name in ("path_kl", "label_kl", "alignment_kl")},
    }
    print(f"seconds per 160 s of audio: N={UTTERANCES}, T={FRAMES}, V={TOKENS}, {args.device}, {args.threads} threads")
    for name, criterion in built.items():
        if isinstance(criterion, torch.nn.Module):
            criterion.to(args.device)
        flat, peaked = (seconds(criterion, peak, args.device) for peak in (1.0, 8.0))
        print(f"{name:<16}{flat:8.3f} s{peaked:8.3f} s with nearly one-hot posteriors")


if __name__ == "__main__":
    main()
