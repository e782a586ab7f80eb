"""The settings of `variational_lm`, all of them flags of fairseq's commands."""

from dataclasses import dataclass
from typing import Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II, MISSING

from fairseq_vat.errors import VATError
from fairseq_vat.latent.prior import check_temperature
from fairseq_vat.models.config import check_values, option
from fairseq_vat.tasks.generation import LatentSampling


@dataclass
class VariationalLMConfig(FairseqDataclass):
    """Flags of `fairseq_vat.tasks.variational_lm.VariationalLMTask`."""

    data: str = option(
        MISSING,
        "directory made by fairseq-preprocess --only-source; several, separated by "
        "colons, are gone through one an epoch (valid and test are in the first)",
    )
    max_source_positions: int = option(
        1024, "longest source, counting the start token and the end of sentence"
    )
    max_target_positions: int = option(
        1024, "longest target, counting the end of sentence; a target has no start token"
    )
    truncate: bool = option(
        False,
        "cut sentences that are too long, source and target alike, to what fits both "
        "limits: 64 and 64 keep 62 tokens between start token and end of sentence (default: "
        "training skips them; validation and generation refuse them, or skip them with "
        "--skip-invalid-size-inputs-valid-test)",
    )
    start_token: bool = option(True, "head every source sentence with a start token")
    latent_sampling: bool = option(
        False, "generation: draw the latents (default: keep them at their mean)"
    )
    latent_samples: Optional[int] = option(
        None, "generation: draws a sentence, with --latent-sampling (default: 1)"
    )
    latent_temperature: float = option(
        1.0, "generation: factor on the posterior's standard deviation, above 0"
    )
    latent_seed: int = option(
        1, "generation: with the sentence and the draw's number it fixes a draw"
    )
    latent_positions: Optional[str] = option(
        None,
        "generation: draw only the latents at these source positions, such as 3,7-9, "
        "with --latent-sampling; the first subword is 1, the start token 0",
    )
    latent_marks: Optional[str] = option(
        None,
        "fairseq-interactive: draw only the latents of words between these marks, "
        "such as '[]' or '<v> </v>', with --latent-sampling; a backslash before a mark makes "
        "it text",
    )
    aggressive_encoder_updates: int = option(
        0,
        "aggressive training (He et al. 2019): at most so many updates of the encoder "
        "alone before each of the decoder alone, fewer where the loss over 10 of them stops "
        "falling (100 is theirs; up to 10 it is the exact number; 0: off)",
    )
    aggressive_max_updates: Optional[int] = option(
        None,
        "aggressive training ends after so many updates at the latest (default: when "
        "mutual information falls between validations at --validate-interval-updates)",
    )
    log_isotropy: int = option(
        0,
        "measure the isotropy of the latents of a validation subset's first so many "
        "sentences at each validation (0: off)",
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    validate_interval_updates: int = II("dataset.validate_interval_updates")
    disable_validation: bool = II("dataset.disable_validation")


def latent_sampling(cfg: VariationalLMConfig) -> LatentSampling | None:
    """What the generation flags ask for: None keeps latents at their mean."""
    check_temperature(cfg.latent_temperature, "--latent-temperature")
    check_values(cfg, ("latent_samples",), lambda x: x is None or x >= 1, "at least 1")
    if not cfg.latent_sampling:
        alone = {"samples": None, "temperature": 1.0, "positions": None, "marks": None, "seed": 1}
        for name, default in alone.items():
            if getattr(cfg, f"latent_{name}") != default:
                raise VATError(
                    f"--latent-{name} needs --latent-sampling: without it latents aren't drawn"
                )
        return None
    return LatentSampling(cfg.latent_samples or 1, cfg.latent_temperature, cfg.latent_seed)
