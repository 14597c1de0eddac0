"""Compiled programs: told one by one, and kept where no one else keeps them."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lidit_jax.batch import BatchShape, fake, spec
from lidit_jax.training import programs


@pytest.fixture
def cache(monkeypatch):
    """Sets the user's own folder, or none, and makes this CPU an accelerator."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def user_has(folder):
        for name, value in zip(names, (folder, 0.0)):
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    yield user_has
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@contextlib.contextmanager
def found():
    """Yields a list that gets an entry for each program that is found compiled."""
    hits = []

    def hear(name, **_):
        hits.extend([name] if name == "/jax/compilation_cache/cache_hits" else [])

    jax.monitoring.register_event_listener(hear)
    yield hits
    jax.monitoring.unregister_event_listener(hear)


def compiled(factor):
    jax.jit(lambda x: jnp.sin(x) * factor).lower(jnp.ones(3)).compile()


def test_what_is_compiled_is_found_by_the_next_start(cache, tmp_path):
    cache(None)
    compiled(2)  # as what all processes meet by, before they have a folder
    with programs.kept_in(tmp_path / "one"), found() as hits:
        compiled(3)
    assert not hits and len(list((tmp_path / "one").glob("jit__lambda*-cache"))) == 1
    jax.clear_caches()
    with programs.kept_in(tmp_path / "one"), found() as hits:
        compiled(3)
    assert hits
    jax.clear_caches()
    with programs.kept_in(tmp_path / "two"):  # another run's is another folder
        compiled(3)
    assert list((tmp_path / "two").glob("jit__lambda*-cache"))
    before = set((tmp_path / "two").iterdir())
    compiled(4)
    assert set((tmp_path / "two").iterdir()) == before


@pytest.mark.parametrize("folder", ["own", ""])
def test_the_users_own_choice_stays(folder, cache, tmp_path):
    cache(folder and str(tmp_path / folder))
    with programs.kept_in(tmp_path / "run"):
        compiled(5)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "own").exists() == bool(folder)


def test_programs_of_a_cpu_are_not_kept(cache, monkeypatch, tmp_path):
    cache(None)
    monkeypatch.undo()
    with programs.kept_in(tmp_path / "run"):
        compiled(6)
    assert not (tmp_path / "run").exists()


def test_each_program_is_told_as_it_is_done(capsys):
    sizes = [(8, 4), (2, 6)]
    specs = [spec(BatchShape(2, (*size, 3), ((3, 5),))) for size in sizes]
    told = []

    def step(state, batch):
        told.append(capsys.readouterr().out)  # until this one is traced
        return state + batch.latents_BxHxWxC.mean(), {}

    update = programs.compile_each(
        jax.jit(step), jax.eval_shape(lambda: jnp.float32(0)), specs, "program"
    )
    told.append(capsys.readouterr().out)
    assert told[0] == "" and told[1].startswith("program 1 of 2, for 8 x 4 latents: ")
    assert told[2].startswith("program 2 of 2, for 2 x 6 latents: ")
    update(jnp.float32(0), fake(BatchShape(2, (2, 6, 3), ((3, 5),))))
    done = []
    programs.compile_each(
        jax.jit(step), jax.eval_shape(lambda: jnp.float32(0)), specs, alive=lambda: done.append(1)
    )
    assert capsys.readouterr().out == "" and len(done) == 2
