"""Tables 2 to 6 of the paper, and Fig. 3: the same switches on the scenes world,
in hours on 2 CPU cores.

python -m lidit_jax.ablate --config=configs/ablations.py --runs=base,ltr,ltr_causal --seeds=3 \
    --out=out/ablations

A run is a set of changes to `base`. SmolLM2-135M-Instruct stands in for LLaMA3-8B, Gemma-3-270M
for Qwen1.5-7B and MiniLM for T5-XXL. Nothing here is tuned on pictures and text, so the paper's
results on multi-modal tuning (`mm`, `mm_instr`) have no counterpart. The paper's own runs are in
configs/ablations_paper.py.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import base, scenes


@dataclasses.dataclass(frozen=True)
class Switches:
    """The switches of a run of the paper's ablations, with the paper's LLMs."""

    llms: tuple[str, ...] = ("llama3",)
    tuned: bool = False  # on pictures and text
    instruction: bool = False
    refiners: int = 0  # linguistic token refiner blocks
    gating: bool = True
    mask: str = "full"
    fusion: str = "refiner"
    paper: tuple[float, float] = ()  # T2I-avg, DPG-avg


_BOTH = ("llama3", "qwen")
# The last row of Table 2, and the runs that Table 6 compares its refiners with.
_WHOLE = {"tuned": True, "instruction": True, "refiners": 2}
RUNS = {
    "base": Switches(paper=(38.72, 66.15)),
    "base_instr": Switches(instruction=True, paper=(38.47, 65.84)),
    "mm": Switches(tuned=True, paper=(44.22, 71.81)),
    "mm_instr": Switches(tuned=True, instruction=True, paper=(48.41, 73.45)),
    "ltr": Switches(refiners=2, paper=(54.02, 77.08)),
    "ltr_causal": Switches(refiners=2, mask="causal", paper=(45.84, 71.01)),
    "ltr1": Switches(refiners=1, paper=(48.25, 73.83)),
    "ltr3": Switches(refiners=3, paper=(55.13, 77.65)),
    "ltr_nogate": Switches(refiners=2, gating=False, paper=(53.47, 76.68)),
    "t5": Switches(llms=("t5",), paper=(48.82, 73.56)),
    "t5_ltr": Switches(llms=("t5",), refiners=2, paper=(49.52, 74.63)),
    "qwen_base": Switches(llms=("qwen",), paper=(38.11, 65.61)),
    "qwen_ltr": Switches(llms=("qwen",), refiners=2, paper=(53.81, 76.49)),
    "mm_instr_ltr": Switches(**_WHOLE, paper=(56.79, 78.62)),
    "mm_instr_ltr_qwen": Switches(("qwen",), **_WHOLE, paper=(56.13, 78.49)),
    "concat": Switches(_BOTH, **_WHOLE, fusion="concat", paper=(58.32, 79.04)),
    "full": Switches(_BOTH, **_WHOLE, paper=(60.31, 80.25)),
}

# Not in the paper. A causal refiner's gates read the mean of the whole prompt, and so pass every
# token information about later ones; without gates, nothing does.
EXTRA = {"ltr_causal_nogate": Switches(refiners=2, mask="causal", gating=False)}

# The paper's findings about runs that the scenes world has.
CLAIMS = {
    "refiner": "ltr > base",
    "causal_refiner": "ltr_causal > base",
    "full_attention": "ltr > ltr_causal",
    "refiner_of_another_llm": "qwen_ltr > qwen_base",
    "encoder": "t5 > base",
    "refiner_suits_llms": "ltr - base > t5_ltr - t5",
    "second_block": "ltr > ltr1",
    "third_block": "ltr3 > ltr",
    "gating": "ltr > ltr_nogate",
    "second_llm": "concat > max(mm_instr_ltr, mm_instr_ltr_qwen)",
    "collaborative_refiner": "full > concat",
}
# Questions of our own. A refiner without gates sees later tokens only through its attention.
QUESTIONS = {
    "instruction": "base_instr > base",
    "first_block": "ltr1 > base",
    "later_blocks_help_less": "ltr - ltr1 > ltr3 - ltr",
    "refiner_of_an_encoder": "t5_ltr > t5",
    "full_attention_without_gates": "ltr_nogate > ltr_causal_nogate",
    "blind_refiner": "ltr_causal_nogate > base",
    "gates_of_a_causal_refiner": "ltr_causal > ltr_causal_nogate",
}
_SMALL = {"llama3": "smollm2", "qwen": "gemma3", "t5": "minilm"}


def delta(switches: Switches, names: dict[str, str]) -> ConfigDict:
    """Returns a run's changes to the base. names: the paper's LLM -> its encoder in the config."""
    c = ConfigDict({"text": {"use": tuple(names[llm] for llm in switches.llms), "encoders": {}}})
    for name in c.text.use:
        c.text.encoders[name] = ConfigDict({"instruction": switches.instruction})
    c.model = ConfigDict({"conditioner": {"name": "direct"}})
    if switches.refiners:
        c.model.conditioner = ConfigDict(
            {
                "name": "infused",
                "n_ltr": switches.refiners,
                "gating": switches.gating,
                "ltr_mask": switches.mask,
                "fusion": switches.fusion,
            }
        )
    return c


def get_config(arg: str = "") -> ConfigDict:
    c = ConfigDict()
    c.base = scenes.get_config(arg)
    c.base.data.preview = ()
    had = {name: switches for name, switches in RUNS.items() if not _needs_tuning(name)} | EXTRA
    runs = {name: delta(switches, _SMALL) for name, switches in had.items()}
    c.runs = ConfigDict(runs, sort_keys=False)  # in the order of the paper's tables
    c.paper = ConfigDict({name: switches.paper for name, switches in had.items()})
    c.claims = ConfigDict(CLAIMS | QUESTIONS, sort_keys=False)
    c.metrics = ("t2i_avg", "binding", "geneval", "all_correct")  # the first decides the claims
    c.prompts = 1_536  # held out, for each run
    c.unsteady = ("ltr_nogate", "ltr_causal_nogate")  # their seeds vary more than those of others
    if base.is_smoke(arg):
        c.prompts = 32
    return c


def _needs_tuning(name: str) -> bool:
    """Returns whether a run differs from another only in multi-modal tuning."""
    return name in ("mm", "mm_instr")
