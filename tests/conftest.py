"""Eight virtual devices for the whole suite, no silent rank promotion, and the
tiny LLMs, data set and run that several files use."""

import gc

from tests import compiling

compiling.set_up()

import jax  # noqa: E402
import pytest  # noqa: E402

from lidit_jax import preparation  # noqa: E402
from lidit_jax.training import loop  # noqa: E402
from tests import several, tiny, tiny_llms, tiny_prepared  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def chat_tokenizer():
    return tiny_llms.tokenizer_of("llama")


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory):
    """Returns the path of the tiny model of a family, saved on first use."""
    root = tmp_path_factory.mktemp("models")

    def path(family):
        target = root / family
        if not target.exists():
            tiny_llms.save(family, target)
        return str(target)

    return path


@pytest.fixture(scope="session")
def llms(tiny_llm):
    return [tiny_llm("llama"), tiny_llm("gemma3")]


@pytest.fixture(scope="session")
def data(llms, tmp_path_factory):
    """A data set of 48 pictures read by one LLM: a step of two takes twice as long to compile."""
    folder = tmp_path_factory.mktemp("data") / "set"
    preparation.prepare(tiny.config(llms[:1]), folder)
    return folder


@pytest.fixture(scope="session")
def poor(data, tmp_path_factory):
    """The data set with 9 pictures that cannot be read: rows 25 to 33."""
    folder = tiny_prepared.broken(data, tmp_path_factory.mktemp("poor"))
    for record in range(1, 10):
        path = next(folder.rglob("latents-00001*"))
        tiny_prepared.change_record(path, record, tiny_prepared.not_finite)
    return folder


@pytest.fixture(scope="session")
def held_out(llms, tmp_path_factory):
    """A data set of five pictures of one size and three of another, that no run here is trained on."""
    folder = tmp_path_factory.mktemp("held_out")
    source, options = tiny_prepared.SOURCES["folder"](folder / "raw")
    config = tiny_prepared.config_of(llms, source, options, min_bin=2, limit=8)
    preparation.prepare(config, folder / "set")
    return folder / "set"


@pytest.fixture(scope="session")
def config(llms):
    return tiny.config(llms[:1], **tiny.RUN)


@pytest.fixture(scope="session")
def config_file(llms, tmp_path_factory):
    """The config of a run, for processes that are started by the door."""
    return several.write_config(tmp_path_factory.mktemp("config"), llms)


@pytest.fixture(scope="session")
def workdir(config, data, tmp_path_factory):
    """A run of four steps without interruption."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    loop.train(config, data, folder)
    return folder


def pytest_collection_modifyitems(items):
    """Puts what is long to the front, else one process is still at it when the others have nothing left."""
    items.sort(key=lambda item: "training" not in item.path.parts)


def pytest_collection_finish():
    """Spares the garbage collector what is there for good, modules above all: a 14th of the time of four files."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_terminal_summary(terminalreporter):
    """Prints what tests have to say with `record_property("totals", line)`, whichever process ran them."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, line in report.user_properties:
            if name == "totals" and report.when == "call":
                terminalreporter.write_line(line)
