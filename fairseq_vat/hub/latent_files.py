"""Files of latents and of sentence vectors."""

import os
import zipfile

import numpy as np

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.latent.gaussian import Latents


def save_vectors(path: str | os.PathLike, vectors: np.ndarray) -> None:
    """Write what `VATHubInterface.embed` gives as a .npy file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, vectors, allow_pickle=False)


def save_latents(path: str | os.PathLike, latents: Latents) -> None:
    """Write what `VATHubInterface.encode` gives as a .npz file with its fields, likewise."""
    arrays = {name: tensor.numpy() for name, tensor in latents._asdict().items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_latents(path: str | os.PathLike) -> list[np.ndarray]:
    """The means of each sentence, (P, L), in single precision, for `VATHubInterface.decode`.

    Args:
        path: a file of `save_latents`, or a .npy file of one latent a sentence, (N, L).

    Raises:
        VATError: for any other file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if hasattr(loaded, "files"):
            mean, mask = loaded["mean"], loaded["mask"].astype(bool)
            points = [rows[kept] for rows, kept in zip(mean, mask, strict=True)]
        else:
            points = list(loaded)
        if any(point.dtype.kind not in "fiu" for point in points):
            raise ValueError(f"its values are of type {points[0].dtype}")
        return [point.astype(np.float32) for point in points]
    except (ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        # what numpy advises of a file that it can't read is to trust it
        reason = "it is another kind of file" if "allow_pickle" in str(error) else error
        raise VATError(
            f"{path} isn't a .npz of 'fairseq-vat encode' or a .npy of numbers: {reason}"
        ) from error
