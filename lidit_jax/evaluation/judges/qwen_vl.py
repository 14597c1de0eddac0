"""Qwen2-VL: a vision-language model, asked to answer yes or no."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import loading
from lidit_jax.evaluation.judges.records import Answer

REQUEST = "{question} Answer yes or no."
SPELLINGS = {"yes": ("Yes", "yes"), "no": ("No", "no")}  # one token each: the answer's first


class Qwen2VL:
    """A VQA judge (Qwen2-VL, arXiv 2409.12191). Not comparable: no benchmark's published judge."""

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        if not self._tokenizer.chat_template:
            raise InputError(
                f"the tokenizer in {folder} has no chat template; want a Qwen2-VL-*-Instruct model"
            )
        self._yes, self._no = (
            [loading.word_id(self._tokenizer, word, folder) for word in words]
            for words in SPELLINGS.values()
        )
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def ask(self, image: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        """Returns one answer per question: "yes" if P(yes) / (P(yes) + P(no)) exceeds 1/2.

        image: uint8 [height, width, 3]. Each is asked alone, with the model's chat template, as
        "<question> Answer yes or no.". P(yes) is the probability that the reply begins with the
        token "Yes" or "yes", the sum of the two; P(no) likewise.
        """
        pixels = loading.pixels(self._images, image, device=self._model.device)
        return [self._answer(pixels, question) for question in questions]

    def _answer(self, pixels: dict, question: str) -> Answer:
        words = self._tokenizer(self._chat(pixels, question), return_tensors="pt")
        words = words.to(self._model.device)
        sees = (words.input_ids == self._model.config.image_token_id).int()
        logits_V = self._model(**words, **pixels, mm_token_type_ids=sees).logits[0, -1]
        yes, no = (logits_V[ids].logsumexp(dim=0) for ids in (self._yes, self._no))
        p_yes = float((yes - no).sigmoid())
        return Answer(p_yes, "yes" if p_yes > 0.5 else "no")

    def _chat(self, pixels: dict, question: str) -> str:
        """Returns the prompt, with one image token for each feature of the picture."""
        said = {"type": "text", "text": REQUEST.format(question=question)}
        chat = [{"role": "user", "content": [{"type": "image"}, said]}]
        prompt = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        token = self._tokenizer.decode([self._model.config.image_token_id])
        features = int(pixels["image_grid_thw"].prod()) // self._images.merge_size**2
        return prompt.replace(token, token * features, 1)
