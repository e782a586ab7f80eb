"""KL weight schedules w(t): pure functions of the update number t = 0, 1, 2, ...

Nothing here knows of fairseq.  To add a schedule: write the function, name it in `Schedule`, and
let `Annealing.weight` pass it what it needs.
"""

import math
from dataclasses import dataclass
from enum import Enum

from fairseq_vat.errors import VATError


def linear(t: int, updates: int) -> float:
    """min(1, t / N): from 0 at the first update to 1 at update N (Bowman et al. 2016)."""
    return min(1.0, t / updates)


def cyclic(t: int, updates: int, cycles: int, ratio: float) -> float:
    """M ramps over T updates (Fu et al. 2019; VAE-Transformer paper, equation (9)).

    tau = mod(t, ceil(T / M)) / (T / M) is the place inside the cycle; the weight rises linearly
    to 1 at tau = R and stays there.  With R = 0 there is no ramp.  The formula ends with update
    T - 1; from T on the weight is 1.
    """
    if t >= updates or ratio == 0:
        return 1.0
    tau = (t % math.ceil(updates / cycles)) / (updates / cycles)
    return min(1.0, tau / ratio)


def logistic(t: int, updates: int, slope: float) -> float:
    """1 / (1 + exp(-k (t - N / 2))), k the slope: Bowman et al. (2016), with N / 2 as its middle.

    The VAT paper's appendix A gives N = 50,000 and 0.00025, its "initial value": either w(0), for
    which `slope_from` finds k, or k itself, by which w(0) = 0.0019.
    """
    return 1.0 / (1.0 + math.exp(min(700.0, -slope * (t - updates / 2))))


def slope_from(init: float, updates: int) -> float:
    """k of a `logistic` with w(0) = init, and so w(N) = 1 - init."""
    return 2.0 / updates * math.log((1.0 - init) / init)


DEFAULT_INIT = 0.00025
DEFAULT_UPDATES = 4000  # of a logistic without --kl-annealing-updates


class Schedule(Enum):
    """The schedules `--kl-annealing` knows."""

    constant = "constant"
    linear = "linear"
    cyclic = "cyclic"
    logistic = "logistic"


@dataclass(frozen=True)
class Annealing:
    """A schedule with its numbers, checked when it is made.

    Raises:
        VATError: naming the `fairseq-train` flag that is wrong.
    """

    schedule: Schedule = Schedule.constant  # name of the schedule
    updates: int = 0  # N or T, the number of updates it spans; not needed by ``constant``
    cycles: int = 5  # M, for ``cyclic``
    ratio: float = 0.5  # R, the ramp's share of a cycle, for ``cyclic``
    # w(0), for ``logistic``; `DEFAULT_INIT` if neither it nor `slope` is given
    init: float | None = None
    slope: float | None = None  # k, for ``logistic``, in place of `init`

    def __post_init__(self) -> None:
        if self.updates < 0:
            raise VATError(f"--kl-annealing-updates must be > 0, not {self.updates}")
        if self.schedule != Schedule.constant and self.updates == 0:
            raise VATError(
                f"--kl-annealing {self.schedule.value} needs the number of updates it spans: "
                "give --kl-annealing-updates N"
            )
        if self.cycles < 1:
            raise VATError(f"--kl-annealing-cycles must be at least 1, not {self.cycles}")
        if not 0.0 <= self.ratio <= 1.0:
            raise VATError(f"--kl-annealing-ratio must be from 0 to 1, not {self.ratio}")
        if self.init is not None and self.slope is not None:
            raise VATError("--kl-annealing-init can't be combined with --kl-annealing-slope")
        if self.slope is not None and not 0.0 < self.slope < math.inf:
            raise VATError(f"--kl-annealing-slope must be above 0, not {self.slope}")
        if self.init is not None and not 0.0 < self.init < 0.5:
            raise VATError(
                f"--kl-annealing-init must be above 0 and below 0.5, not {self.init}: it is the "
                "logistic weight at update 0"
            )

    def weight(self, t: int) -> float:
        """w(t), between 0 and 1, at update t >= 0."""
        if self.schedule == Schedule.linear:
            return linear(t, self.updates)
        if self.schedule == Schedule.cyclic:
            return cyclic(t, self.updates, self.cycles, self.ratio)
        if self.schedule == Schedule.logistic:
            slope = self.slope or slope_from(self.init or DEFAULT_INIT, self.updates)
            return logistic(t, self.updates, slope)
        return 1.0
