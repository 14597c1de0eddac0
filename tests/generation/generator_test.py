"""A picture is its prompt's and its seed's, on any mesh, in any batch; a prompt is read once."""

import functools
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers

from lidit_jax import errors, files, sharding
from lidit_jax.generation import Generator, Wanted, generate, reading, sample_config
from lidit_jax.prompts import Prompt
from lidit_jax.text import encode
from lidit_jax.text.llm import FrozenLLM
from lidit_jax.training import checkpoints

PROMPTS = ["a red circle", "a blue star", "", "a star", "a cyan ring above a red square", "b", "c"]
SEEDS = [5, 6, 7, 8, 9, 10, 11]
SIZE = (16, 16)


@pytest.fixture(scope="module")
def alone(make_generator):
    """Each picture's latents, drawn on one device, one by one."""
    generator = make_generator(batch_size=1, raw=True)
    wanted = [Wanted(p, s, SIZE) for p, s in zip(PROMPTS, SEEDS)]
    return dict(generator.draw(wanted))


def test_the_prompt_and_the_seed_matter(make_generator, alone):
    scale = np.abs(alone[0]).max()
    generator = make_generator(batch_size=1, raw=True)
    for prompt, seed in (("another", SEEDS[0]), (PROMPTS[0], 99)):
        other = generator([prompt, PROMPTS[4]], [seed, 0])[0]  # as long, and so the same program
        assert np.abs(other - alone[0]).max() > 0.01 * scale


def test_guidance_away_from_the_prompt_itself_is_no_guidance(make_generator):
    """And away from another prompt leads elsewhere than away from the empty one."""

    def drawn(**options):
        return make_generator((2, 1, 1), raw=True, **options)([PROMPTS[0], PROMPTS[4]], SEEDS[:2])

    off, usual = drawn(guidance=1.0), drawn()
    scale = np.abs(off).max()
    itself = drawn(negative=PROMPTS[0])
    np.testing.assert_allclose(itself[0], off[0], atol=1e-4 * scale)
    for other in (off, usual):
        assert np.abs(itself[1] - other[1]).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("mesh", "batch_size"),
    [
        pytest.param((1, 1, 1), 3, marks=pytest.mark.slow),
        pytest.param((4, 1, 1), 64, marks=pytest.mark.slow),
        pytest.param((8, 1, 1), 1, marks=pytest.mark.slow),
        pytest.param((1, 8, 1), 8, marks=pytest.mark.slow),
        ((2, 2, 2), 3),
    ],
)
def test_any_mesh_and_any_batch_draw_what_one_device_draws_one_by_one(
    make_generator, alone, mesh, batch_size
):
    """Seven prompts divide over none of these; a batch is filled up to a multiple of its parts."""
    generator = make_generator(mesh, batch_size, raw=True)
    drawn = generator(PROMPTS, SEEDS)
    for k, latents in alone.items():
        np.testing.assert_allclose(drawn[k], latents, atol=2e-5 * np.abs(latents).max())


@pytest.mark.slow
def test_one_prompt_is_drawn_on_eight_devices_as_on_one(make_generator):
    one, eight = (make_generator(mesh)(["a star"], [3]) for mesh in ((1, 1, 1), (8, 1, 1)))
    assert eight.shape == (1, 16, 16, 3) and eight.dtype == np.uint8
    assert np.abs(one.astype(int) - eight).max() <= 1


@pytest.mark.slow
def test_a_part_of_a_request_is_drawn_by_the_program_of_the_whole(make_generator):
    generator = make_generator((2, 1, 1), alone=True)
    sizes = [SIZE] * 5 + [(8, 24)] * 2
    wanted = [Wanted(p, s, size) for p, s, size in zip(PROMPTS, SEEDS, sizes)]
    whole = dict(generator.draw(wanted))
    assert [whole[k].shape for k in range(7)] == [(*size, 3) for size in sizes]
    programs = generator._draw._cache_size()
    part = dict(generator.draw(wanted, [6, 1, 5]))  # without the longest prompt
    assert part.keys() == {1, 5, 6} and generator._draw._cache_size() == programs == 2
    for k in part:
        np.testing.assert_array_equal(part[k], whole[k])


def test_each_distinct_prompt_is_read_once(make_generator, monkeypatch):
    """Also where windows and batches are smaller than the request, and sizes alternate."""
    generator = make_generator()
    generator(["a"], [0])  # the LLMs are loaded, and known by the empty prompt
    seen, read = [], FrozenLLM.encode_ids

    def counted(self, kept, *args):
        seen.extend((self.config.name, tuple(ids)) for ids in kept)
        return read(self, kept, *args)

    monkeypatch.setattr(FrozenLLM, "encode_ids", counted)
    monkeypatch.setattr(encode, "_WINDOW", 2)
    one_by_one = functools.partial(encode.encode_captions, batch_size=1)
    monkeypatch.setattr(reading, "encode_captions", one_by_one)
    sizes = itertools.cycle([SIZE, (8, 24)])
    wanted = [Wanted(p, s, next(sizes)) for s in range(2) for p in PROMPTS[:5]]
    assert len(dict(generator.draw(wanted))) == 10
    assert len(seen) == len(set(seen)) == 5


def test_in_bf16_what_is_read_does_not_depend_on_the_rest_of_a_request(make_generator, monkeypatch):
    """As on a GPU: so a stopped request, or one in shares, goes on with the same pictures."""
    load = transformers.AutoModel.from_pretrained
    in_bf16 = functools.partial(load, dtype=torch.bfloat16)
    monkeypatch.setattr(
        transformers.AutoModel, "from_pretrained", lambda *a, dtype, **k: in_bf16(*a, **k)
    )
    read = make_generator()._readers.read
    prompts = [*PROMPTS, "a much longer one " * 9]
    for prompt, together in zip(prompts, read(prompts), strict=True):
        (alone,) = read([prompt])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


def test_no_more_is_read_than_waits_for_a_batch(make_generator, monkeypatch):
    generator, ahead = make_generator(), []

    def read(texts):
        for text in texts:
            ahead.append(text)
            yield text

    monkeypatch.setattr(generator._readers, "read", read)
    wanted = [Wanted(str(k), k, SIZE) for k in range(10_000)]
    parts = generator._parts(wanted, range(10_000), generator._batch_sizes(wanted))
    for count in range(1, 4):
        assert [row for row, _ in next(parts)[1]] == list(range(4 * count - 4, 4 * count))
        assert len(ahead) == 4 * count


def test_a_sampler_that_does_not_fit_the_schedule_is_refused_before_a_weight_is_read(
    workdir, tmp_path
):
    """The folder has a config and no weights, which is what would be told next."""
    saved = json.loads((workdir / "config.json").read_text())
    saved["objective"]["schedule"], saved["sample"]["sampler"]["name"] = "linear", "ddim"
    files.write_json(tmp_path / "config.json", saved)
    euler = sample_config(tmp_path, name="euler")
    with pytest.raises(
        errors.InputError, match="'euler' is for schedule 'flow', got .* use one of"
    ):
        Generator(tmp_path, euler)
    with pytest.raises(errors.InputError, match="holds no checkpoints"):
        Generator(tmp_path)


def test_a_runs_own_sampler_is_drawn_by_but_for_what_is_given_and_eta_stays_with_ddim(
    workdir, tmp_path
):
    saved = json.loads((workdir / "config.json").read_text())
    saved["objective"]["schedule"] = "linear"
    saved["sample"]["sampler"] |= {"name": "ddim", "steps": 7, "eta": 0.5}
    files.write_json(tmp_path / "config.json", saved)

    def sampler(**changes):
        found = sample_config(tmp_path, **changes).sampler
        return found.name, found.steps, found.eta

    assert sampler(name="ddpm") == ("ddpm", 7, 0.0)
    assert sampler(name="ddim") == sampler() == ("ddim", 7, 0.5)
    assert sampler(name=None, steps=9) == ("ddim", 9, 0.5)
    assert sampler(name="ddim", eta=0.3) == ("ddim", 7, 0.3)


def test_what_is_refused_is_refused_before_an_llm_is_loaded(make_generator, monkeypatch):
    generator, loaded = make_generator(), []
    monkeypatch.setattr(reading.llm, "load", lambda *args: loaded.append(args))
    sizes = [SIZE, (18, 16)]
    with pytest.raises(errors.InputError, match="18x16: 18 is not divisible by 4"):
        next(generator.draw([Wanted("a", 0, size) for size in sizes]))
    assert not loaded


def test_a_negative_prompt_is_a_text_and_wants_guidance(workdir):
    with pytest.raises(
        errors.InputError, match="'fog' with guidance 1.0, which is off; use another"
    ):
        Generator(workdir, sample_config(workdir, guidance=1.0), negative_prompt="fog")
    with pytest.raises(errors.InputError, match="want text that UTF-8 can encode"):
        Generator(workdir, negative_prompt="\udcff")


def test_guidance_wants_a_trained_empty_prompt(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / "run")
    saved = files.read_json(folder / "config.json", "config")
    saved["train"]["drop_prompt"] = 0.0
    files.write_json(folder / "config.json", saved)
    with pytest.raises(errors.InputError, match="has not learned: its train.drop_prompt is 0"):
        Generator(folder, sample_config(folder, guidance=2.0))
    Generator(folder, sample_config(folder, guidance=1.0))
    Generator(folder, sample_config(folder, guidance=2.0), negative_prompt="fog")


def test_no_device_has_all_of_the_weights(make_generator):
    generator = make_generator((1, 8, 1))
    kernel = generator.ema["dit"]["blocks"]["ffn"]["up"]["kernel"][...]
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 32 // 8, 128)}


def test_a_mesh_that_the_model_does_not_divide_over_is_refused(workdir):
    mesh = sharding.make_mesh((1, 1, 8))  # four heads
    with pytest.raises(errors.InputError, match="does not divide over 8 devices .*; a mesh of"):
        Generator(workdir, mesh=mesh)


def test_a_generator_uses_every_device_unless_told(workdir):
    assert dict(Generator(workdir).mesh.shape) == {
        "replica": len(jax.devices()),
        "fsdp": 1,
        "tensor": 1,
    }


def test_an_earlier_checkpoint_draws_other_pictures_and_says_which_it_is(workdir):
    first, last = checkpoints.steps(workdir)[0], checkpoints.last_step(workdir)
    early, late = Generator(workdir, step=first), Generator(workdir)
    assert (early.step, late.step) == (first, last) and first < last
    assert early.identity != late.identity
    kernels = [
        np.asarray(g.ema["dit"]["blocks"]["ffn"]["up"]["kernel"][...]) for g in (early, late)
    ]
    assert not np.array_equal(*kernels)
    with pytest.raises(errors.InputError, match=f"no checkpoint of step 999; it has .*{last}"):
        Generator(workdir, step=999)


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [
        ([], [], "want one or more prompts and a seed for each"),
        (["a"], [], "want one or more prompts and a seed for each"),
        (["a"], [0, 1], "want one or more prompts and a seed for each"),
        (["caf\udce9"], [0], r"prompt 'caf.udce9': want text that UTF-8 can encode"),
        (["a"], [-1], "seed -1: want a whole number from 0"),
        (["a"], [0.5], "seed 0.5: want a whole number from 0"),
        ("ab", [0, 1], "prompts is the text 'ab'; want a list of prompts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(prompts, seeds, message, workdir, tmp_path):
    generator = Generator(workdir)
    with pytest.raises(errors.InputError, match=message):
        generator(prompts, seeds)
    wanted = prompts if isinstance(prompts, str) else [Prompt(p) for p in prompts]
    with pytest.raises(errors.InputError, match=message):
        generate(generator, wanted, seeds, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_text_is_not_read_letter_by_letter(workdir):
    with pytest.raises(errors.InputError, match="prompts is the text 'red'; want a list"):
        Generator(workdir).encode("red")
