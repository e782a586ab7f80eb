"""``--optimizer fused_adam``: a step of Adam in one pass over a parameter and its moments."""

from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig

from fairseq_vat.errors import VATError


@register_optimizer("fused_adam", dataclass=FairseqAdamConfig)
class FusedAdam(FairseqAdam):
    """fairseq's ``adam`` with torch's fused kernel: the same flags, defaults and meaning.

    fairseq reads and writes a parameter, its gradient and its moments some ten times a step, and
    has a fused kernel only on CUDA and with apex; torch has one for CPUs, too. Weight decay is
    decoupled (AdamW, Loshchilov and Hutter 2019) in both. Epsilon is added to the square root of
    the second moment before its bias is corrected in fairseq and after it in torch, which differs
    in the first updates, and there only for gradients about as small as epsilon.

    Raises:
        VATError: for ``--fp16-adam-stats``, which needs apex, and ``--use-old-adam``.
    """

    def __init__(self, cfg: FairseqAdamConfig, params: Any):
        FairseqOptimizer.__init__(self, cfg)  # FairseqAdam's would choose an optimizer
        for name in ("fp16_adam_stats", "use_old_adam"):
            if getattr(cfg, name, False):
                raise VATError(f"--{name.replace('_', '-')} needs --optimizer adam")
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What a resumed training sets again; torch takes betas of one type alone."""
        config = super().optimizer_config
        return config | {"betas": tuple(map(float, config["betas"]))}

    def load_state_dict(self, state_dict: Any, optimizer_overrides: Any = None) -> None:
        """As fairseq's, for moments of their parameters' shapes; the kernel looks at no shape."""
        super().load_state_dict(state_dict, optimizer_overrides)
        for parameter, moments in self._optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moment = moments.get(name)
                if moment is not None and not (
                    moment.shape == parameter.shape and moment.stride() == parameter.stride()
                ):
                    raise VATError(
                        f"the checkpoint's optimizer has moments of shape {[*moment.shape]} for a "
                        f"parameter of {[*parameter.shape]}: it is damaged; --reset-optimizer "
                        "leaves it out"
                    )

    @property
    def supports_flat_params(self) -> bool:
        """Whether all parameters may come as one vector, as ``--fp16`` has them."""
        return True
