"""BLIP for question answering: the judge of T2I-CompBench's attributes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.evaluation.judges import loading
from lidit_jax.evaluation.judges.records import Answer

SIDE = 480  # pixels; the picture is resized to a square
LONGEST = 35  # tokens of a question
ENCODE = 1  # [ENC] follows [DEC]: BLIP added these two tokens to BERT's, as 30522 and 30523


class Blip:
    """A VQA judge as T2I-CompBench uses BLIP (arXiv 2307.06350, section 4.1;
    BLIP, arXiv 2201.12086).

    Three things differ from transformers' defaults. The first token of a question is [ENC], where
    BERT's tokenizer puts [CLS]: the text encoder was trained like this. The picture has 480 pixels,
    with interpolated positions, where the published folder says 384. And the answer is not
    generated: it is read from the logits of the decoder's first step, after [DEC].
    """

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._yes_no = [loading.word_id(self._tokenizer, word, folder) for word in ("yes", "no")]
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def ask(self, image: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        """Returns one answer per question: "yes" if P(yes), among "yes" and "no" only, exceeds 1/2.

        image: uint8 [height, width, 3]. Questions are truncated to 35 tokens.
        """
        seen = self._see(image)
        return [self._answer(seen, question) for question in questions]

    def _answer(self, seen, question: str) -> Answer:
        """Returns the answer to one question, given the picture's features.

        Questions are not batched: that needs padding, to which transformers' BLIP attends in
        cross-attention.
        """
        words = self._tokenizer(question, truncation=True, max_length=LONGEST, return_tensors="pt")
        ids = words.input_ids.to(seen.device)
        decode = self._model.config.text_config.bos_token_id
        ids[:, 0] = decode + ENCODE
        read = self._model.text_encoder(input_ids=ids, encoder_hidden_states=seen)
        said = self._model.text_decoder(
            input_ids=ids.new_full((1, 1), decode), encoder_hidden_states=read.last_hidden_state
        )
        p_yes = float(said.logits[0, 0, self._yes_no].softmax(dim=-1)[0])
        return Answer(p_yes, "yes" if p_yes > 0.5 else "no")

    def _see(self, image: np.ndarray):
        """Returns the picture's features, [1, patches + 1, width]."""
        size = {"height": SIDE, "width": SIDE}
        pixels = loading.pixels(self._images, image, device=self._model.device, size=size)
        return self._model.vision_model(**pixels, interpolate_pos_encoding=True).last_hidden_state
