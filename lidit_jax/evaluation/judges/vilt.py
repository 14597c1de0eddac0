"""ViLT for question answering: it picks one of the 3,129 most frequent answers of VQAv2."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import loading
from lidit_jax.evaluation.judges.records import Answer


class Vilt:
    """A VQA judge (ViLT, arXiv 2102.03334). Not comparable: no benchmark's published judge."""

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._model = loading.model(folder)
        ids = {name: k for k, name in self._model.config.id2label.items()}
        if not {"yes", "no"} <= ids.keys():
            raise InputError(
                f"{folder} cannot answer 'yes' or 'no': they are not in its "
                "config's id2label; want a ViLT that was trained on VQAv2"
            )
        self._yes_no = [ids["yes"], ids["no"]]
        self.identity = loading.identity(folder)

    def ask(self, image: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        """Returns one answer per question: the likeliest of all, which may be neither yes nor no.

        image: uint8 [height, width, 3]. Questions are truncated to the model's length, 40 tokens.
        P(yes) and P(no) are sigmoids, since ViLT trains each answer with a binary cross-entropy.
        """
        pixels = loading.pixels(self._images, image, device=self._model.device)
        return [self._answer(pixels, question) for question in questions]

    def _answer(self, pixels: dict, question: str) -> Answer:
        from torch.nn.functional import logsigmoid

        longest = self._model.config.max_position_embeddings
        words = self._tokenizer(question, truncation=True, max_length=longest, return_tensors="pt")
        logits_A = self._logits(words.to(self._model.device), pixels)
        p_yes = float(logsigmoid(logits_A[self._yes_no]).softmax(dim=0)[0])
        return Answer(p_yes, self._model.config.id2label[int(logits_A.argmax())])

    def _logits(self, words, pixels: dict):
        """Returns the model's logits of its answers.

        It shuffles the picture's patches, which only affects rounding; the shuffle is always the
        same here, so that judging a picture is deterministic.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return self._model(**words, **pixels).logits[0]
