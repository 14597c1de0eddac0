"""Nothing that a stranger made can run code here, or reach beyond its folder."""

import ast
import contextlib
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import tarfile
import zlib

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lidit_jax import errors
from lidit_jax.data import dataset, plan, records, sources
from lidit_jax.data.sources.images import ImageError
from lidit_jax.evaluation import pictures
from lidit_jax.models.vae import folder as vae_folder
from lidit_jax.models.vae import kl
from lidit_jax.text import llm
from lidit_jax.training import checkpoints, trained
from tests import tiny

PACKAGE = pathlib.Path(__file__).parent.parent / "lidit_jax"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def sprung(tmp_path):
    """The file that a trap makes; it must not be there in the end."""
    path = tmp_path / "sprung"
    yield path
    assert not path.exists()


def test_a_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_nothing_is_unpickled_evaluated_or_trusted_in_the_whole_package():
    unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                found += [f"{path}: {name}" for name in names if name.split(".")[0] in unsafe]
            if isinstance(node, ast.Call) and is_unsafe(node):
                found.append(f"{path}:{node.lineno} {ast.unparse(node.func)}")
    assert not found


def is_unsafe(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {(k.arg, ast.unparse(k.value)) for k in call.keywords}
    if name in ("np.load", "numpy.load"):
        return ("allow_pickle", "False") not in given
    if name.endswith(".from_pretrained"):  # `source` has SAFE in it
        return not given & {(None, "pretrained.SAFE"), (None, "source")}
    return name in ("eval", "exec", "torch.load", "yaml.load", "os.system")


# Arrays.


@pytest.mark.parametrize("name", ["prefix.npy", "null.npy", "channels.npy"])
def test_a_pickled_array_of_a_feature_store_is_refused(name, tmp_path, sprung):
    np.save(tmp_path / name, np.array([Trap(sprung)], object), allow_pickle=True)
    with pytest.raises(errors.InputError, match=f"{name} is missing or damaged"):
        dataset.read_array(tmp_path / name)


def test_a_pickled_plan_is_refused(data, tmp_path, sprung):
    copy = shutil.copytree(data, tmp_path / "copy")
    opened = plan.Plan(copy)
    fields = vars(opened.piece(0))
    fields["key_N"] = np.array([Trap(sprung)], object)
    np.savez(plan.piece_path(copy, 0, opened.pieces), **fields)
    with pytest.raises(errors.InputError, match="is missing or damaged"):
        opened.piece(0)


# Models.


def test_the_code_in_a_models_folder_is_not_run(llms, tmp_path, sprung):
    folder = shutil.copytree(llms[0], tmp_path / "llm")
    (folder / "evil.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        maps = {k: "evil.Evil" for k in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
        maps["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
        content |= {"auto_map": maps, "model_type": "evil", "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(errors.InputError, match="cannot load"):
        llm.load(tiny.config([folder]).encoders[0], tmp_path / "cache")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "llm.gguf"])
def test_a_pickle_in_the_place_of_an_llms_weights_is_refused(name, llms, tmp_path, sprung):
    folder = shutil.copytree(llms[0], tmp_path / "llm")
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    magic = b"GGUF" if name.endswith(".gguf") else b""
    (folder / name).write_bytes(magic + torch_pickle(Trap(sprung)))
    model = folder / name if name.endswith(".gguf") else folder
    with pytest.raises(errors.InputError, match="cannot load|is damaged|cannot read"):
        llm.load(tiny.config([model]).encoders[0], tmp_path / "cache")


def torch_pickle(trap: Trap) -> bytes:
    """What `torch.save` makes of it."""
    import torch

    file = io.BytesIO()
    torch.save(trap, file)
    return file.getvalue()


def test_a_pickle_in_the_place_of_a_vaes_weights_is_refused(tmp_path, sprung):
    config = kl.VAEConfig(block_out_channels=(16, 32), norm_num_groups=8)
    vae_folder.save(kl.AutoencoderKL(config, rngs=nnx.Rngs(0)), tmp_path / "vae")
    path = tmp_path / "vae" / vae_folder.WEIGHTS
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(errors.InputError, match=path.name):
        vae_folder.load(tmp_path / "vae")


def test_pickles_in_the_place_of_a_checkpoints_files_are_refused(workdir, tmp_path, sprung):
    """One at a time: its metadata, its record, its arrays."""
    checkpoint = workdir / "checkpoints" / "4"
    kinds = {(p.parent if p.parent.name == "d" else p).name: p for p in checkpoint.rglob("*")}
    kinds = {name: path for name, path in kinds.items() if path.is_file()}
    assert {"metadata", "_METADATA", "d", "manifest.ocdbt"} <= kinds.keys() and len(kinds) < 12
    whole = trained.open_to_draw(workdir)
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
        (whole.ema, whole.constants),
    )
    for i, path in enumerate(kinds.values()):
        run = shutil.copytree(workdir, tmp_path / str(i))
        (run / path.relative_to(workdir)).write_bytes(pickle.dumps(Trap(sprung)))
        with contextlib.suppress(errors.InputError):  # or it is a file that nothing depends on
            checkpoints.restore_ema(run, *like)
        list(checkpoints.info(run))


def test_a_pickle_in_the_place_of_a_record_is_refused(sprung):
    with pytest.raises(records.BadRecord):
        records.unpack_image(pickle.dumps(Trap(sprung)))


# Archives.


def bomb(side: int) -> bytes:
    """A PNG of a kilobyte that says that it has side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png(colour) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def examples(source) -> tuple[list, list]:
    """Returns what a source has that may be used, and what it gave up, by key."""
    found = list(source.piece(0, 1))
    given_up = [e for e in found if isinstance(e, sources.Unusable)]
    return [e for e in found if e not in given_up], given_up


def test_a_tar_reaches_nothing_outside_of_itself(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("red"))
    path = tmp_path / "tars" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:

        def add(name, content=b"", **fields):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        add("../../out.png", png("blue"))
        add("../../out.txt", b"a blue square")
        add("/root.png", png("lime"))
        add("/root.txt", b"a lime square")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            add(f"link{kind.decode()}.png", type=kind, linkname=str(secret))
            add(f"link{kind.decode()}.txt", b"a red square")
    before = sorted(tmp_path.rglob("*"))
    usable, given_up = examples(sources.make("webdataset", path=str(path.parent)))
    seen = [e.picture.pixels(32, 32)[0, 0].tolist() for e in usable]
    assert seen == [[0, 0, 255], [0, 255, 0]] and len(given_up) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_reaches_nothing_outside_of_its_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png("red"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.png").write_bytes(png("blue"))
    rows = [{"file_name": "mine.png", "caption": "a blue square"}]
    for name in ("../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png"):
        rows.append({"file_name": name, "caption": "a red square"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    usable, given_up = examples(sources.make("folder", path=str(folder)))
    assert [e.key for e in usable] == ["mine"] and len(given_up) == 3


def test_a_manifest_reaches_nothing_outside_of_its_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png("red"))
    folder = tmp_path / "samples"
    folder.mkdir()
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        entry = {"file": name, "prompt": "a", "seed": 0}
        (folder / "manifest.json").write_text(json.dumps({"pictures": [entry]}))
        with pytest.raises(errors.InputError, match="outside .*; want a file in it"):
            pictures.read(folder)


# Pictures.


def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(60_000))
    (tmp_path / "bomb.txt").write_text("a bomb")
    (example,), _ = examples(sources.make("folder", path=str(tmp_path)))
    with pytest.raises(ImageError, match="image-too-large"):
        example.picture.pixels(32, 32)
    for side in (60_000, 9_000):
        (tmp_path / "bomb.png").write_bytes(bomb(side))
        with pytest.raises(errors.InputError, match="bomb.png"):
            pictures.Picture(tmp_path / "bomb.png", "a", 0, tmp_path).load()


def test_a_judge_reads_no_format_that_pillow_runs_programs_for(tmp_path):
    (tmp_path / "page.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(errors.InputError, match="cannot read the picture"):
        pictures.Picture(tmp_path / "page.png", "a", 0, tmp_path).load()
