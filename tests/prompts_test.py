"""What is written is read; lines that are no prompts are named."""

import pytest

from lidit_jax import errors, prompts
from lidit_jax.prompts import Prompt


def test_lines_of_text(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffa\n\n  b \r\n".encode())
    assert prompts.read(path) == [Prompt("a"), Prompt("b")]
    path.write_text("a\u2028b\x85c\n", encoding="utf-8")  # as copied from a page
    assert prompts.read(path) == [Prompt("a\u2028b\x85c")]
    path.write_text("\n \n")
    with pytest.raises(errors.InputError, match="has no prompt; want one per line"):
        prompts.read(path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(errors.InputError, match="cannot read prompts"):
        prompts.read(path)
    with pytest.raises(errors.InputError, match="cannot read prompts"):
        prompts.read(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["p.json", "p.csv", "p"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("a\n")
    with pytest.raises(errors.InputError, match="want a .txt or a .jsonl"):
        prompts.read(tmp_path / name)


def test_a_file_of_two_bytes_a_letter_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("a cat\na dog\n".encode("utf-16-le"))
    with pytest.raises(errors.InputError, match="contains zeros, as UTF-16 does; save it as UTF-8"):
        prompts.read(tmp_path / "a.txt")


def test_what_is_written_is_read(tmp_path):
    wanted = [Prompt("two\nlines\u2028three", (48, 80)), Prompt("一只猫"), Prompt("")]
    prompts.write(tmp_path / "p.jsonl", wanted)
    assert prompts.read(tmp_path / "p.jsonl") == wanted


def test_other_keys_are_left_alone(tmp_path):
    path = tmp_path / "geneval.jsonl"
    path.write_text('{"tag": "counting", "include": [{"count": 2}], "prompt": "two dogs"}\n\n')
    assert prompts.read(path) == [Prompt("two dogs")]


@pytest.mark.parametrize(
    "line, message",
    [
        ("a red heart", "line 2 is not JSON"),
        ('["a"]', "line 2: want"),
        ('{"text": "a"}', "line 2: want"),
        ('{"prompt": 3}', "line 2: want"),
        ('{"prompt": "\\ud800"}', "line 2: want"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"prompt": "a", "size": [0, 8]}', "want .height, width. in pixels"),
        ('{"prompt": "a", "size": 64}', "line 2: its size is 64; want"),
        ('{"prompt": "a", "size": [64]}', "want .height, width. in pixels"),
        ('{"prompt": "a", "size": [64, true]}', "want .height, width. in pixels"),
        ('{"prompt": "a", "size": "64"}', "want .height, width. in pixels"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(errors.InputError, match=message):
        prompts.read(path)
