"""Official prompt files are read as published, or refused with what they are instead."""

import json
import shutil

import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.prompt_files import (
    COMPBENCH,
    DPG,
    GENEVAL,
    read_lines,
    read_texts,
)

FOLDERS = {
    "geneval": "geneval",
    "compbench": "t2i_compbench",
    "dpg": "dpg_bench",
    "positional": "t2i_compbench",
}


@pytest.fixture
def geneval(official, tmp_path):
    return shutil.copytree(official / "geneval", tmp_path / "geneval")


def test_the_official_files_are_what_is_published(official):
    assert len(read_lines(official / "geneval", GENEVAL)) == 553
    for published in COMPBENCH.values():
        lines = read_lines(official / "t2i_compbench", published)
        assert len(lines) == 300 and all(line == line.strip() != "" for line in lines)
    assert len(read_texts(official / "dpg_bench", DPG)) == 1065


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(InputError, match="no evaluation_metadata.jsonl in .*github.com/djghosh13"):
        read_lines(tmp_path, GENEVAL)
    with pytest.raises(InputError, match="no prompts.jsonl in .*github.com/TencentQQGYLab/ELLA"):
        read_texts(tmp_path, DPG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no prompts, the published one 553"),
        (b"\n \n", "has no prompts"),
        (b"{}\n" * 552, "has 552 prompts, the published one 553"),
        (b"{}\n" * 553, f"is altered: its SHA-256 is .*{GENEVAL.sha256}"),
        (b"\xff\n" * 553, "is not UTF-8"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / GENEVAL.name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_lines(tmp_path, GENEVAL)


def test_one_byte_or_a_line_end_is_noticed(geneval):
    path = geneval / GENEVAL.name
    content = path.read_bytes()
    for altered in (content.replace(b"bench", b"bemch", 1), content.replace(b"\n", b"\r\n")):
        path.write_bytes(altered)
        with pytest.raises(InputError, match="is altered"):
            read_lines(geneval, GENEVAL)


def test_a_folder_of_texts_is_the_same_as_its_lines(official, tmp_path):
    texts = read_texts(official / "dpg_bench", DPG)
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode() + b"\r\n")
    assert list(read_texts(tmp_path, DPG).items()) == list(texts.items()) == sorted(texts.items())
    first, second = sorted(folder.iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(InputError, match="prompts is altered"):
        read_texts(tmp_path, DPG)
    first.unlink()
    with pytest.raises(InputError, match="has 1064 prompts, the published one 1065"):
        read_texts(tmp_path, DPG)


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"item_id": "0"}', '{"item_id": "0", "text": 3}']
)
def test_lines_of_another_kind_are_refused(tmp_path, line):
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps({"item_id": "1", "text": "a"}) + f"\n{line}\n"
    )
    with pytest.raises(InputError, match='want lines of {"item_id": ..., "text": ...}'):
        read_texts(tmp_path, DPG)


@pytest.mark.parametrize("benchmark", prompt_files.PUBLISHED)
def test_instructions_name_every_file(benchmark, tmp_path):
    told = prompt_files.fetch_instructions(benchmark)
    for published in prompt_files.PUBLISHED[benchmark]:
        for part in (published.name, published.sha256, published.url, str(published.count)):
            assert part in told
    assert "missing" not in told
    assert "(missing)" in prompt_files.fetch_instructions(benchmark, tmp_path)


@pytest.mark.parametrize("benchmark", prompt_files.PUBLISHED)
def test_instructions_check_what_is_there(benchmark, official):
    told = prompt_files.fetch_instructions(benchmark, official / FOLDERS[benchmark])
    assert told.count("(there, as published)") == len(prompt_files.PUBLISHED[benchmark])


def test_instructions_tell_of_files_whose_hash_is_not_known(tmp_path):
    for benchmark, name in (("dpg", "dpg_bench.csv"), ("positional", "shape_train.txt")):
        told = prompt_files.fetch_instructions(benchmark)
        assert f"{name}, whose hash is not known here" in told and f"/{name}" in told
        assert f"{name} (missing), " in prompt_files.fetch_instructions(benchmark, tmp_path)
        (tmp_path / name).touch()
        assert f"{name} (there), " in prompt_files.fetch_instructions(benchmark, tmp_path)


def test_instructions_refuse_an_altered_file_and_an_unknown_benchmark(geneval):
    (geneval / GENEVAL.name).write_text("{}\n" * 553)
    with pytest.raises(InputError, match="is altered"):
        prompt_files.fetch_instructions("geneval", geneval)
    with pytest.raises(InputError, match="unknown benchmark 'genevla'; known: geneval"):
        prompt_files.fetch_instructions("genevla")
