"""Names among which flags choose, apart from the code they stand for: parsers load no torch."""

POOLINGS = ("mean", "sum", "start")
INTERPOLATION_METHODS = ("linear", "spherical")
# what e' is in z = mean + sigma e': N(0, I) (VAT paper, section 2.1), or of the prior's standard
# deviation s, N(0, s^2 I) (below equation (6)); docs/measures.md has what follows
LATENT_NOISES = ("unit", "prior")
