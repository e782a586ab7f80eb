"""Figures from tensors."""
