"""Prints each LLM's continuation of a prompt, with and without the instruction (paper's Fig. 4).

python -m lidit_jax.continuations --config=configs/shapes_two_llms.py
"""

import dataclasses

from absl import flags

from lidit_jax import doors, errors, prompts
from lidit_jax.text import continuation, llm

_PROMPT = flags.DEFINE_string("prompt", continuation.PROMPT, "the prompt for the LLMs")
_TOKENS = flags.DEFINE_integer("tokens", continuation.TOKENS, "most tokens", lower_bound=1)


def main():
    encoders = doors.config().encoders
    if not encoders:
        raise errors.InputError("the config has no LLM; give one with text.use")
    if not prompts.is_text(_PROMPT.value):
        raise errors.InputError(f"--prompt={_PROMPT.value!r} is not UTF-8 text")
    for encoder in encoders:
        for instruction in (False, True) if encoder.template != "encoder" else (False,):
            config = dataclasses.replace(encoder, instruction=instruction)
            said = continuation.continuation(
                config, _PROMPT.value, llm.default_cache(), _TOKENS.value
            )
            print(
                f"{encoder.name}, {'with' if instruction else 'no'} instruction: {said}\n",
                flush=True,
            )


if __name__ == "__main__":
    doors.run(main, reads=True)
