"""Features come back as near as their codec promises, in as few bytes."""

import types

import jax
import ml_dtypes
import msgpack
import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data import pipeline, records
from lidit_jax.data.feature_codecs import BF16, Int8, check_codec, is_finite


@pytest.fixture
def hidden_SxE():
    """Tokens as an LLM gives them: a few channels a hundred times as large, around a large mean."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(40, 64)) * SCALE_E + 3 * SCALE_E).astype(np.float32)


SCALE_E = np.where(np.arange(64) < 3, 300.0, 1.0)


def size(packed):
    return len(msgpack.packb(packed))


def test_bf16_keeps_eight_bits_of_each_number(hidden_SxE):
    codec = BF16()
    back = codec.unpack(codec.pack(hidden_SxE))
    assert back.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(back.astype(np.float32), hidden_SxE, rtol=2**-8)


def test_int8_errs_by_half_a_step_of_the_tokens_largest_channel(hidden_SxE):
    mean_E, std_E = hidden_SxE.mean(0), hidden_SxE.std(0)
    codec = Int8(mean_E, std_E)
    back = codec.unpack(codec.pack(hidden_SxE))
    standard, found = (hidden_SxE - mean_E) / std_E, (back - mean_E) / std_E
    step_S = np.abs(standard).max(1) / 127
    assert (np.abs(found - standard) <= 0.501 * step_S[:, None]).all()
    assert np.square(found - standard).mean() ** 0.5 < 0.01  # small channels have their bits too


def test_int8_takes_half_of_bf16(hidden_SxE):
    wide = np.tile(hidden_SxE, (1, 9))
    codec = Int8(np.zeros(576), np.ones(576))
    assert size(codec.pack(wide)) <= 0.55 * size(BF16().pack(wide))
    assert size(codec.pack(wide)) <= 0.3 * wide.nbytes


def test_a_token_of_nothing_stays_nothing():
    codec = Int8(np.zeros(4), np.ones(4))
    assert (codec.unpack(codec.pack(np.zeros((2, 4), np.float32))) == 0).all()


def test_int8_of_a_batch_is_restored_as_each_caption_alone_and_padding_is_nothing(hidden_SxE):
    """On the host bit for bit; jitted, a product and a sum may be rounded as one."""
    codec = Int8(hidden_SxE.mean(0), hidden_SxE.std(0))
    captions = [codec.pack(hidden_SxE[a:b]) for a, b in ((0, 7), (7, 8), (8, 20))]
    store = types.SimpleNamespace(codec=codec, info={"longest": 12})
    reader = pipeline.Reader(None, [store], 0)
    stored = pipeline.pad_stored([codec.stored(c) for c in captions], 16)
    assert stored.int8_BxSxE.dtype == np.int8
    wanted = pipeline.pad_features([codec.unpack(c) for c in captions], 16)
    (eager,), (jitted,) = reader.restored((stored,)), jax.jit(reader.restored)((stored,))
    for found in (eager, jitted):
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        np.testing.assert_array_equal(found.mask_BxS, wanted.mask_BxS)
        np.testing.assert_array_equal(found.keep_BxS, wanted.keep_BxS)
        assert found.hidden_BxSxE.dtype == np.float32
        assert not np.asarray(found.hidden_BxSxE)[~wanted.mask_BxS].any()
    np.testing.assert_array_equal(eager.hidden_BxSxE, wanted.hidden_BxSxE)
    largest_E = np.abs(hidden_SxE).max(0)
    assert (np.abs(jitted.hidden_BxSxE - wanted.hidden_BxSxE) <= 2**-22 * largest_E).all()


def test_bf16_travels_as_it_is_stored(hidden_SxE):
    codec = BF16()
    stored = pipeline.pad_stored([codec.stored(codec.pack(hidden_SxE))], 64)
    reader = pipeline.Reader(None, [types.SimpleNamespace(codec=codec, info={"longest": 40})], 0)
    assert reader.restored((stored,))[0] is stored
    np.testing.assert_array_equal(stored.hidden_BxSxE[0, :40], codec.unpack(codec.pack(hidden_SxE)))


@pytest.mark.parametrize("codec", [BF16(), Int8(np.zeros(64), np.ones(64))])
def test_records_are_compressed_where_that_is_worth_it_and_read_either_way(codec, tmp_path):
    packed = msgpack.packb(codec.pack(np.zeros((400, 64), np.float32)))
    for compressed in (True, False):
        path = tmp_path / f"{compressed}.array_record"
        with records.writing(path, compressed) as writer:
            for _ in range(50):
                writer.write(packed)
        assert records.Shards([path])[3] == packed
        assert (path.stat().st_size > 50 * len(packed)) != compressed


def test_an_unknown_codec_is_refused():
    with pytest.raises(errors.InputError, match="unknown codec 'int4'; known: int8, bf16"):
        check_codec("int4", "codec")


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_no_number_that_is_not_finite_passes(bits):
    finite = np.arange(2**16, dtype=np.uint16)
    finite = finite[finite & 0x7F80 != 0x7F80].reshape(-1, 2)  # every number that bf16 has
    assert is_finite(finite) and is_finite(finite[:0])
    finite[700, 1] = bits
    assert not is_finite(finite)
