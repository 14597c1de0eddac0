"""Encoded pictures: the header tells the truth, what is mended looks right, what is broken is named."""

import io
import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from lidit_jax.data.sources import images
from lidit_jax.data.sources.images import Encoded, FilePath, FileSlice, ImageError, InMemory
from tests.tiny_sources import encode, picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PICTURE = picture(60, 90)
ORIENTATIONS = {  # how a picture that lies so is turned upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def encoded(image, format="PNG", **options) -> Encoded:
    return Encoded(InMemory(encode(image, format, **options)))


def natural(source: Encoded) -> np.ndarray:
    """Returns its pixels at its own size."""
    return source.pixels(*source.size())


def reason(content: bytes, act=natural) -> str:
    with pytest.raises(ImageError) as error:
        act(Encoded(InMemory(content)))
    assert error.value.reason in images.REASONS
    return error.value.reason


def png(width: int, height: int, depth: int = 8, rows: bytes = b"\0") -> bytes:
    """Returns an RGB PNG that claims a size and a number of bits, and has these rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_its_pixels_and_size(format):
    source = encoded(PICTURE, format)
    assert source.size() == (60, 90)
    difference = np.abs(natural(source).astype(int) - PICTURE)
    assert difference.mean() < (0.5 if format in ("PNG", "BMP", "TIFF") else 8)
    assert natural(source).dtype == np.uint8


def test_a_picture_is_covered_and_cropped():
    wide = picture(60, 120)
    pixels = encoded(wide).pixels(30, 30)
    assert pixels.shape == (30, 30, 3)
    middle = encoded(wide[:, 30:90]).pixels(30, 30)
    assert np.abs(pixels.astype(int) - middle).mean() < 1


@pytest.mark.parametrize("format", ("JPEG", "PNG", "WEBP", "TIFF"))
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_are_turned_as_exif_says(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    source = encoded(PICTURE, format, exif=exif, **options)
    upright = ORIENTATIONS[orientation](PICTURE)
    assert source.size() == upright.shape[:2]
    assert np.abs(natural(source).astype(int) - upright).mean() < (4 if format == "JPEG" else 0.01)
    assert ("image-rotated" in source.notes()) == (orientation != 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("format", ("JPEG", "PNG", "WEBP"))
@pytest.mark.parametrize("exif", [b"nonsense", b"MM\0*\xff\xff\xff\xff", b""])
def test_damaged_exif_loses_no_picture(format, exif):
    source = encoded(PICTURE, format, exif=b"Exif\0\0" + exif)
    assert source.size() == (60, 90) and source.notes() == ()
    assert natural(source).shape == (60, 90, 3)


@pytest.mark.parametrize("format", ("PNG", "TIFF"))
def test_16_bits_are_scaled_not_clipped(format):
    ramp = np.linspace(0, 65535, 8192).round().astype(np.uint16)
    source = encoded(Image.fromarray(np.tile(ramp, (4, 1))), format)
    row = natural(source)[0].astype(int)
    assert (row == row[:, :1]).all() and (np.diff(row[:, 0]) >= 0).all()
    assert np.abs(row[:, 0] - ramp / 257).max() <= 0.5
    assert row[0, 0] == 0 and row[-1, 0] == 255
    assert "image-16bit" in source.notes()


def test_signed_numbers_are_no_picture(tmp_path):
    """Heights and slopes are kept so; as unsigned ones, half of them would be white."""
    path, unsigned, signed = tmp_path / "a.tif", b"\x53\1\3\0\1\0\0\0\1", b"\x53\1\3\0\1\0\0\0\2"
    ramp = np.arange(16, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(ramp).save(path, tiffinfo={339: 1})  # SampleFormat
    content = path.read_bytes()
    assert content.count(unsigned) == 1 and Encoded(FilePath(str(path))).size() == (4, 4)
    path.write_bytes(content.replace(unsigned, signed))
    with pytest.raises(ImageError, match="image-mode"):
        Encoded(FilePath(str(path))).size()


def test_16_bit_colour_is_scaled_and_noted():
    raw = np.zeros((2, 3, 3), ">u2")
    raw[:, 0], raw[:, 1] = (65535, 32768, 256), (1000, 0, 65535)
    rows = b"".join(b"\0" + row.tobytes() for row in raw)
    source = Encoded(InMemory(png(3, 2, 16, rows)))
    assert np.abs(natural(source)[0] - raw[0] / 257).max() <= 1
    assert "image-16bit" in source.notes()


def test_cmyk_keeps_its_colours():
    for format in ("JPEG", "TIFF"):
        for ink, rgb in (((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0))):
            source = encoded(Image.new("CMYK", (16, 16), ink), format)
            assert np.abs(natural(source).astype(int) - rgb).max() < 6
            assert source.notes() == ("image-cmyk",)


def test_what_is_transparent_is_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.paste((0, 0, 255, 255), (0, 0, 2, 4))
    half.putpixel((3, 3), (0, 0, 0, 128))
    grey = Image.new("LA", (4, 4), (0, 0))
    palette = half.convert("P")
    palette.info["transparency"] = palette.getpixel((2, 0))
    for image, format in ((half, "PNG"), (half, "WEBP"), (half, "TIFF"), (palette, "GIF")):
        source = encoded(image, format, **({"lossless": True} if format == "WEBP" else {}))
        assert (natural(source)[0] == [[0, 0, 255]] * 2 + [[255] * 3] * 2).all(), format
        assert "image-alpha" in source.notes()
    assert abs(int(natural(encoded(half))[3, 3, 0]) - 127) <= 1
    assert (natural(encoded(grey)) == 255).all()
    assert encoded(grey).notes() == ("image-alpha", "image-grey")


def test_grey_and_palette_pictures_become_rgb():
    for mode in ("1", "L", "P"):
        source = encoded(Image.fromarray(PICTURE).convert(mode))
        expected = np.asarray(Image.fromarray(PICTURE).convert(mode).convert("RGB"))
        assert (natural(source) == expected).all()
        assert source.notes() == (("image-palette",) if mode == "P" else ("image-grey",))


def test_a_picture_of_a_telephone_is_its_first():
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (20, 20))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert natural(Encoded(InMemory(buffer.getvalue()))).shape == PICTURE.shape


def test_what_is_no_picture_is_named():
    assert reason(b"") == "image-empty"
    assert reason(b"<html>404 not found</html>") == "image-unknown"
    assert reason(b"RIFF\0\0\0\0WAVEfmt ") == "image-unknown"
    assert reason(encode(Image.new("F", (4, 4)), "TIFF")) == "image-mode"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_cut_picture_is_never_filled_with_grey(format, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    content = encode(noise, format)
    assert reason(content[: int(share * len(content))]) == "image-truncated"


def test_a_cut_progressive_jpeg_is_named():
    content = encode(PICTURE, "JPEG", progressive=True)
    assert reason(content[: len(content) // 2]) == "image-truncated"


@pytest.mark.parametrize("format", ("GIF", "PNG", "WEBP", "TIFF"))
def test_more_than_one_frame_is_refused(format):
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    content = encode(frames[0], format, save_all=True, append_images=frames[1:])
    for act in (Encoded.size, Encoded.notes, natural):
        assert reason(content, act) == "image-animated"


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**14, 2**14 + 1)])
def test_a_huge_claim_is_refused_by_the_header(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for act in (Encoded.size, lambda p: p.pixels(8, 8)):
            assert reason(png(*size), act) == "image-too-large"


def test_a_huge_gif_is_refused_by_the_header():
    content = bytearray(encode(PICTURE, "GIF"))
    content[6:10] = b"\xff" * 4
    assert reason(bytes(content), Encoded.size) == "image-too-large"


def test_a_large_picture_is_taken_without_a_warning():
    """179 million pixels are more than `Image.open` takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Encoded(InMemory(png(2**14, 2**14))).size() == (2**14, 2**14)
    assert Image.MAX_IMAGE_PIXELS < 2**27


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_whatever_the_damage_there_are_pixels_or_a_reason(format):
    rng = np.random.default_rng(0)
    content = encode(picture(24, 36), format)
    named = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=rng.integers(1, 8)):
            damaged[position] = rng.integers(256)
        source = Encoded(InMemory(bytes(damaged)))
        try:
            assert source.pixels(16, 16).shape == (16, 16, 3)
        except ImageError as error:
            named += error.reason in images.REASONS
    assert named or format == "BMP"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        for act in (Encoded.size, Encoded.digest, lambda p: p.pixels(8, 8)):
            with pytest.raises(ImageError, match="image-unreadable"):
                act(Encoded(FilePath(str(path))))


def test_a_slice_of_a_file_is_the_picture_in_it(tmp_path):
    for format in FORMATS:
        content = encode(PICTURE, format)
        (tmp_path / "a.tar").write_bytes(b"\xff\xd8" * 100 + content + b"\xff\xd8" * 100)
        part = Encoded(FileSlice(str(tmp_path / "a.tar"), 200, len(content)))
        whole = Encoded(InMemory(content))
        assert (natural(part) == natural(whole)).all()
        assert (part.size(), part.digest()) == (whole.size(), whole.digest())


def test_the_size_is_read_from_the_first_blocks(tmp_path):
    """A file's header is enough: what is behind it may even be missing."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    for format in ("JPEG", "PNG", "BMP"):
        (tmp_path / "a").write_bytes(encode(noise, format)[:4096])
        assert Encoded(FilePath(str(tmp_path / "a"))).size() == (700, 900)
    assert not [f for f in os.listdir("/proc/self/fd") if _leads_to(f, tmp_path / "a")]


def _leads_to(descriptor, path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    except OSError:
        return False


def test_pictures_and_their_errors_survive_pickling():
    source = encoded(PICTURE)
    source.size()
    assert (natural(pickle.loads(pickle.dumps(source))) == PICTURE).all()
    assert pickle.loads(pickle.dumps(ImageError("image-empty"))).reason == "image-empty"


def test_pillow_is_left_as_it_was():
    from PIL import ImageFile

    assert Image.MAX_IMAGE_PIXELS == 89_478_485 and not ImageFile.LOAD_TRUNCATED_IMAGES
