"""Posterior collapse: when a decoder does without its latents, and what can be done about it.

Bowman et al. (2016) name the KL that goes to 0; but a posterior can differ from the prior, and even
from sentence to sentence, without the decoder caring.  So its nll counts too: from the sentence's
own latents, and from latents of the prior.
"""

from typing import Any

# under so many nats of KL per latent, and of mutual information, there is nothing to decode from
NATS = 0.1
# the share of the nll that own latents have to take away; a perplexity of 100 falls to 95 by it
GAIN = 0.01

REMEDIES = (
    "try a smaller --kl-weight, longer KL annealing (--kl-annealing, --kl-annealing-updates), "
    "--free-bits, --word-dropout or another --prior-std"
)


def reason(
    kl_nats: float, gain: float | None, active_units: int, mi: float | None = None
) -> str | None:
    """What shows that the latents go unused, or None.

    Args:
        gain: share of the nll from the prior's latents that own latents take away.
        active_units: at the smaller of the two thresholds, 0.01 and 0.01 p^2.
        mi: mutual information per latent, in nats, where it is known.
    """
    if kl_nats < NATS:
        return f"{kl_nats:.3f} nats of KL per latent, under {NATS}"
    if active_units == 0:
        return "no active unit"
    if gain is not None and gain < GAIN:
        return (
            f"own latents lower the nll by {gain:.1%} against latents of the prior, "
            f"under {GAIN:.0%}"
        )
    if mi is not None and mi < NATS:
        return f"{mi:.3f} nats of mutual information, under {NATS}"
    return None


def message(why: str) -> str:
    """The one line of a warning."""
    return f"the posterior has collapsed ({why}): the decoder hardly uses the latents; {REMEDIES}"


def warning(found: dict[str, Any]) -> str | None:
    """One line for a model that ignores its latents, with what to try; else None."""
    if not found["latents"] or found["latents"] < 2:  # of one latent nothing can be said
        return None
    active = max(found[name]["count"] for name in ("active_units", "active_units_scaled"))
    gain = found["latent_gain"]["share"]
    why = reason(found["kl_nats"], gain, active, found["mi"]["paired"])
    return why and message(why)
