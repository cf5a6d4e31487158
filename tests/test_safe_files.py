"""Files of strangers: pictures of formats that we do not mean, and things that are no files."""

import io
import os
import signal
import socket
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from adaptkit import cli
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


GOOD = "dataset: {0}\nbackbone: toy:0\nshots: [1]\nseeds: [1]\nmethods: [zero-shot]\n"
DOORS = {  # a file's name, what a recipe beside it says, and the command
    "recipe": ("x.yaml", "", "plan x.yaml"),
    "recipe that is exported": ("x.yaml", "", "export x.yaml --method gda --out out"),
    "recipe that is checked": ("x.yaml", "", "data check x.yaml"),
    "extends": ("base.yaml", "extends: base.yaml", "plan over.yaml"),
    "--plugin": ("mine.py", GOOD.format("toy"), "plan over.yaml --plugin mine.py"),
    "plugins": ("mine.py", GOOD.format("toy") + "plugins: [mine.py]", "plan over.yaml --trust"),
    "check": ("mine.py", "", "check mine.py"),
    "csv": ("mine.csv", GOOD.format("csv:mine.csv"), "plan over.yaml"),
    "split": ("mine.json", GOOD.format("split:mine.json"), "plan over.yaml"),
    "data supports": ("mine.json", "", "data supports mine.json --shots 1 --seed 1"),
    "prompts": ("mine.json", GOOD.format("toy") + "prompts: {llm: {file: mine.json}}", "run over.yaml --quiet"),
    "support": ("mine.json", GOOD.format("toy") + "support: {indices: {file: mine.json}}", "run over.yaml --quiet"),
    "record": ("runs/gda.json", "", "compare runs"),
    "recipe of a run": ("runs/recipe.json", "", "compare runs"),
    "classifier": ("model/config.json", "", "predict model photo.png"),
    "tensors": ("model/model.safetensors", "", "predict model photo.png"),
    "picture": ("odd.png", "", "predict model odd.png"),
}


@pytest.mark.fault(*NO_FILE)
@pytest.mark.parametrize("kind", ["pipe", "folder", "zero"])
@pytest.mark.parametrize("door", DOORS)
def test_no_command_waits_for_what_is_no_file(door, kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, text, command = DOORS[door]
    for folder in ("runs", "model"):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text("{}")
    Path("over.yaml").write_text(text)
    Image.new("RGB", (8, 8)).save("photo.png")
    Path(name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        Path(name).mkdir()
    else:
        Path(name).symlink_to("/dev/zero")
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{command} must not wait"))
    signal.alarm(20)
    try:
        code = cli.main(["--home", str(tmp_path / "home"), *command.split()])
    finally:
        signal.alarm(0)
    error = capsys.readouterr()[1]
    assert code == 2 and error.startswith("adaptkit: error: "), f"it must be refused; got {code}, {error!r}"
    assert error.count("\n") == 1, f"in one line; got {error!r}"


@pytest.mark.parametrize("name", ["..yaml", "...yaml", "....yml", ". .yaml", "link.yaml"])
def test_a_recipe_without_a_name_is_refused(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("...yaml" if name == "link.yaml" else name).write_text(GOOD.format("toy"))
    if name == "link.yaml":
        Path(name).symlink_to("...yaml")
    assert cli.main(["--home", str(tmp_path / "home"), "run", name, "--quiet"]) == 2, "it must be refused"
    assert "a recipe's file must have a name" in capsys.readouterr()[1], "as its results would lie somewhere else"
    assert not (tmp_path / "home").exists(), "and nothing may be written"


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
