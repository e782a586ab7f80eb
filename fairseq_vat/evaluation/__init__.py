"""Numbers about a trained model, and readers for what fairseq's commands print.

What `classify` and `probe` can be asked for is named here, where parsers read it without torch.
"""

# how a linear classifier is trained, and on what of the latents: see `classify`
PROTOCOLS = ("converged", "paper")
LATENTS = ("mean", "sample")
# of `probe`: vectors as they are or the encoder trained along; functions of the dense layer
MODES = ("features", "finetune")
ACTIVATIONS = ("sigmoid", "tanh", "relu")
