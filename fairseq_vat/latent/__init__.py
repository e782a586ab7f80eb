"""Latent variables: Gaussians, noise, annealing, the likelihood of tokens (torch alone)."""
