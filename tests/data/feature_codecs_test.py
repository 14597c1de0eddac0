"""Features come back as near as their codec promises, in as few bytes."""

import ml_dtypes
import msgpack
import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data.feature_codecs import BF16, Int8, check_codec


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


def test_an_unknown_codec_is_refused():
    with pytest.raises(errors.InputError, match="unknown codec 'int4'; known: int8, bf16"):
        check_codec("int4", "codec")
