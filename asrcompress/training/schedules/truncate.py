"""truncate: now and then each layer is replaced by the nearest one of fewer parameters, down to the size."""

from dataclasses import dataclass

from asrcompress.compression import Plan, structures
from asrcompress.options import require
from asrcompress.training.options import TrainingOptions
from asrcompress.training.schedules.base import CuttingSchedule


@dataclass(frozen=True)
class TruncateOptions:
    """First and last cut, as shares of the epochs before the averaged ones, and how many there are."""

    start: float = 0.2
    end: float = 0.9
    steps: int = 4

    def __post_init__(self) -> None:
        require(0 <= self.start <= self.end <= 1 and self.steps >= 1,
                f"schedule truncate: 0 <= start <= end <= 1 and steps is at least 1, not start {self.start:g}, end "
                f"{self.end:g}, steps {self.steps}")


class Truncate(CuttingSchedule):
    """Cuts at even distances; the sizes fall geometrically."""

    name = "truncate"
    Options = TruncateOptions

    def __init__(self, plan: Plan, options: TruncateOptions, training: TrainingOptions) -> None:
        super().__init__(plan, options, training)
        structures.check_trained(plan.structure)

    def milestones(self, size: float) -> list[tuple[float, float]]:
        start, end, steps = self.options.start, self.options.end, self.options.steps
        return [(start + (end - start) * k / max(1, steps - 1), size ** ((k + 1) / steps)) for k in range(steps)]
