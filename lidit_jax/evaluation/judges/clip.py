"""CLIP: embeds pictures and texts in one space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.evaluation.judges import loading


class Clip:
    """CLIP (arXiv 2103.00020): ViT-L/14 for GenEval's colours, ViT-B/32 for CLIPScore."""

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 unit vectors [n, E] of one or more uint8 pictures [height, width, 3].

        A picture's shorter side is resized to the model's input size, and the centre is cropped.
        """
        return _unit(self._seen(images))

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the same without normalising their length, which differs between pictures."""
        return self._seen(images).cpu().numpy()

    def _seen(self, images: Sequence[np.ndarray]):
        pixels = loading.pixels(self._images, *images, device=self._model.device)
        return self._model.get_image_features(**pixels).pooler_output

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 unit vectors [n, E] of one or more texts.

        A text is truncated to the model's length of 77 tokens, start and end tokens included.
        """
        longest = self._model.config.text_config.max_position_embeddings
        words = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self._model.device)
        return _unit(self._model.get_text_features(**words).pooler_output)


def _unit(features_NxE) -> np.ndarray:
    return (features_NxE / features_NxE.norm(dim=-1, keepdim=True)).cpu().numpy()
