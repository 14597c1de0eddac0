"""CLIP: pictures and texts in one space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.evaluation.judges import loading


class Clip:
    """An embedder (CLIP, arXiv 2103.00020): ViT-L/14 judges GenEval's colours, ViT-B/32 CLIPScore."""

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 [n, E], each of length 1, of one or more uint8 pictures [height, width, 3].

        A picture is resized to the model's height or width, whichever is less, and its middle is seen.
        """
        return _unit(self._seen(images))

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the same, of the length that CLIP gives them, which differs from picture to picture."""
        return self._seen(images).cpu().numpy()

    def _seen(self, images: Sequence[np.ndarray]):
        pixels = loading.pixels(self._images, *images, device=self._model.device)
        return self._model.get_image_features(**pixels).pooler_output

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 [n, E], each of length 1, of one or more texts.

        A text is cut to the model's length, of 77 tokens, with those that start and end it.
        """
        longest = self._model.config.text_config.max_position_embeddings
        words = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self._model.device)
        return _unit(self._model.get_text_features(**words).pooler_output)


def _unit(features_NxE) -> np.ndarray:
    return (features_NxE / features_NxE.norm(dim=-1, keepdim=True)).cpu().numpy()
