"""Files of strangers: pictures of formats that we do not mean, and things that are no files."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from adaptkit.io.paths import regular
from adaptkit.io.pictures import FORMATS, SUFFIXES, decode

PICTURE = ("a picture of a format that is not meant, or a bomb", "left out or refused by name, without being decoded")
NO_FILE = ("a folder, a pipe, a socket or a device where a file is expected", "refused at once, in one line")


@pytest.fixture(scope="module", params=["folder", "pipe", "socket", "zero", "full", "null"])
def no_file(request, tmp_path_factory):
    """Something that is no regular file."""
    path = tmp_path_factory.mktemp("no_file") / "x.yaml"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as there:
            there.bind(os.path.relpath(path))
    else:
        path.symlink_to(f"/dev/{request.param}")
    return path


@pytest.mark.fault(*NO_FILE)
def test_a_file_is_a_regular_one(no_file):
    with pytest.raises(ValueError, match=r"a recipe must be a regular file; got '.*x\.yaml', a \w+; give") as caught:
        regular(no_file, "a recipe")
    assert "\n" not in str(caught.value), "the refusal is one line"


def test_a_file_that_is_too_large_is_refused_and_a_missing_one_is_left_to_its_reader(tmp_path):
    file = tmp_path / "x.yaml"
    assert regular(file, "a recipe") == file, "a missing file is its reader's to name"
    file.write_bytes(b"12345")
    assert regular(file, "a recipe", 5) == file, "a file at the limit is fine"
    with pytest.raises(ValueError, match=r"a recipe must have at most 4 bytes; got .* of 5"):
        regular(file, "a recipe", 4)


def test_each_format_that_is_meant_is_decoded_whatever_its_file_is_called():
    for name, suffixes in FORMATS.items():
        assert {*suffixes} <= {*SUFFIXES}, f"files of {name} must be found"
        data = io.BytesIO()
        Image.new("RGB", (8, 6), (200, 20, 20)).save(data, name)
        assert decode(data, "x.txt").size == (8, 6), f"{name} must be decoded"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
SCRIPTS = {"eps": EPS, "pdf": b"%PDF-1.4\n", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "php": b"<?php ?>"}
OTHERS = ("TGA", "PCX", "ICO", "MSP", "SGI", "DDS", "ICNS", "JPEG2000", "PDF", "EPS")


@pytest.mark.fault(*PICTURE)
@pytest.mark.parametrize("kind", [*SCRIPTS, *OTHERS])
def test_a_format_that_is_not_meant_is_not_decoded(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("no program may be started"))
    file = tmp_path / "x.png"
    if kind in SCRIPTS:
        file.write_bytes(SCRIPTS[kind])
    else:
        mode = "1" if kind == "MSP" else "RGB"
        Image.new(mode, (64, 64)).save(file, kind)
    with pytest.raises(ValueError, match=r"an image must be readable; got 'x\.png': "):
        decode(file, "'x.png'")


def bomb(width, height):
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.fault(*PICTURE)
@pytest.mark.parametrize("size", [(10_000, 10_000), (20_000, 20_000), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_says_it_is_huge_is_refused_before_its_pixels_are_made(size):
    with pytest.raises(ValueError, match=r"an image must be readable; got 'bomb': .*(pixels|bomb)"):
        decode(io.BytesIO(bomb(*size)), "'bomb'")


def test_no_other_code_opens_pictures_with_formats_of_its_own():
    root = Path(__file__).parents[1]
    files = [f for top in ("adaptkit", "plugins") for f in (root / top).rglob("*.py") if "Image.open(" in f.read_text()]
    wrong = [f.name for f in files if f.name not in ("pictures.py", "openmoji.py")]  # which renders its own
    assert not wrong, f"pictures are decoded in one place, io/pictures.py; got {wrong}"
