"""``adaptkit data get``: files from a server on this machine, as servers are, into the layout that is checked."""

import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from adaptkit.io import downloads
from adaptkit.io.downloads import download, file_digest
from adaptkit.io.unpacking import unpack
from adaptkit.runs import fetching, plugins
from adaptkit.runs.offers import offers
from tests.serving import Server
from tests.small import Command

DATA = bytes(range(256)) * 40
FIELD = [*json.loads((Path(__file__).parent.parent / "plugins/datasets/field.json").read_bytes())]
SHA = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(downloads, "PACKET", 100)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ADAPTKIT_DATA", raising=False)
    return Command(tmp_path / "home", capsys)


def ranges(server):
    return [part for _, part in server.asked]


# Downloads


@pytest.mark.parametrize("way", ["ranges", "no ranges", "no length", "slow"])
def test_a_file_comes_whole_whatever_the_server_can(way, server, tmp_path):
    download(tmp_path / "a/file", [server.put("f", DATA, way)], size=len(DATA), digests=[SHA])
    assert (tmp_path / "a/file").read_bytes() == DATA
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"], "and nothing else is left"


def test_what_breaks_off_goes_on_from_there(server, tmp_path):
    download(tmp_path / "f", [server.put("f", DATA, "cut1000", "cut500", "ranges")], size=len(DATA), digests=[SHA])
    assert (tmp_path / "f").read_bytes() == DATA
    assert ranges(server) == [None, "bytes=1000-", "bytes=1500-"], "no byte is asked for twice"


def test_a_download_that_was_killed_goes_on_in_the_next_process(server, tmp_path):
    (tmp_path / "f.part").write_bytes(DATA[:3000])
    download(tmp_path / "f", [server.put("f", DATA)], size=len(DATA), digests=[SHA])
    assert ranges(server) == ["bytes=3000-"] and (tmp_path / "f").read_bytes() == DATA
    (tmp_path / "g.part").write_bytes(DATA)
    download(tmp_path / "g", [server.put("f", DATA)], size=len(DATA), digests=[SHA])
    assert len(server.asked) == 1, "one that was whole already is only looked at"


def test_a_server_that_starts_anew_is_written_anew(server, tmp_path):
    (tmp_path / "f.part").write_bytes(b"x" * 3000)
    download(tmp_path / "f", [server.put("f", DATA, "no ranges")], size=len(DATA), digests=[SHA])
    assert (tmp_path / "f").read_bytes() == DATA, "not behind what was there"


def test_a_beginning_of_another_file_costs_one_more_download(server, tmp_path):
    (tmp_path / "f.part").write_bytes(b"x" * 3000)
    said = []
    download(tmp_path / "f", [server.put("f", DATA)], size=len(DATA), digests=[SHA], tell=said.append)
    assert (tmp_path / "f").read_bytes() == DATA and ranges(server) == ["bytes=3000-", None]
    assert len(said) == 1 and "f.wrong" in said[0], "and what was wrong is kept, and told"


def test_keyboard_and_disk_leave_what_came(server, tmp_path, monkeypatch):
    write = downloads._Held.write

    def stop(self, data):
        write(self, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads._Held, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path / "f", [server.put("f", DATA)])
    assert (tmp_path / "f.part").read_bytes() == DATA[:100] and not (tmp_path / "f").exists()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads._Held, "write", full)
    with pytest.raises(OSError, match="No space left on device; free some space or choose another folder by --root"):
        download(tmp_path / "f", [server.put("f", DATA)])


@pytest.mark.parametrize(
    ("way", "answer"),
    [
        (404, "status 404"),
        (503, "status 503"),
        ("other part", "another part than from byte 100 on"),
        ("to:file:///etc/hostname", "InvalidSchema after 0 bytes"),
        ("cut0", "after 0 bytes"),
    ],
)
def test_the_next_address_is_tried_and_all_answers_are_told(way, answer, server, tmp_path):
    if way == "other part":
        (tmp_path / "f.part").write_bytes(DATA[:100])
    bad, good = server.put("bad", DATA, way), server.put("good", DATA)
    with pytest.raises(ValueError, match=rf"f must come from one of its addresses; got .*{answer}.* from {bad}"):
        download(tmp_path / "f", [bad], size=len(DATA), digests=[SHA])
    download(tmp_path / "f", [bad, good], size=len(DATA), digests=[SHA])
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    download(tmp_path / "f", [server.put("f", DATA, 503, 429, "ranges")], digests=[SHA])
    assert len(server.asked) == 3
    server.asked.clear()
    with pytest.raises(ValueError, match="status 404"):
        download(tmp_path / "g", [server.put("f", DATA, 404)])
    assert len(server.asked) == 1, "one that has no such file is not"


def test_a_redirect_is_followed(server, tmp_path):
    download(tmp_path / "f", [server.put("from", b"", f"to:{server.put('f', DATA)}")], digests=[SHA])
    assert (tmp_path / "f").read_bytes() == DATA


def test_another_file_is_named_with_both_digests_and_kept(server, tmp_path):
    said, page = [], b"<html>not found</html>" + DATA[22:]
    address = server.put("f", page)
    with pytest.raises(ValueError, match=f"got another file from {address}"):
        download(tmp_path / "f", [address], digests=[SHA, "md5:" + "0" * 32], tell=said.append)
    got = hashlib.sha256(page).hexdigest()
    assert f"f.part must have {SHA} or md5:{'0' * 32}; got sha256:{got} and md5:" in said[0], "expected and got"
    assert (tmp_path / "f.wrong").read_bytes() == page and not (tmp_path / "f").exists(), "nothing is deleted"


def test_a_file_of_another_size_is_not_even_got(server, tmp_path):
    with pytest.raises(ValueError, match="a file of 22 bytes, where 10,240 are stated"):
        download(tmp_path / "f", [server.put("f", b"<html>not found</html>")], size=len(DATA))
    assert not (tmp_path / "f").exists()
    for way in ("ranges", "no length"):
        with pytest.raises(ValueError, match="more than the 1,200 bytes it may have"):
            download(tmp_path / "g", [server.put("f", DATA, way)], about=1000)
    with pytest.raises(ValueError, match="an end after 5,000 of 10,240 bytes"):
        download(tmp_path / "h", [server.put("f", DATA[:5000], "no length, no ranges")], size=len(DATA))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/f", "/etc/passwd"])
def test_an_address_is_of_the_web(address, tmp_path):
    with pytest.raises(ValueError, match="an address must begin with http:// or https://"):
        download(tmp_path / "f", [address])


def test_digests_are_as_their_tools_print_them(tmp_path):
    (tmp_path / "f").write_bytes(b"hello\n")
    assert file_digest(tmp_path / "f", "git") == "git:ce013625030ba8dba906f756967f9e9ca394464a", "git hash-object"
    assert file_digest(tmp_path / "f", "md5") == "md5:b1946ac92492d2347c6235b4d2611184"


# Archives


def tar(path, members, mode="w:gz"):
    """A tar of members: bytes, or what changes its head."""
    with tarfile.open(path, mode) as pack:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                pack.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                pack.addfile(info)
    return path


def packed(path, members):
    """A zip, or a tar with the compression of its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
            for name, data in members:
                pack.writestr(name, data)
        return path
    return tar(path, members, "w:" + {".tar": "", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}[path.suffix])


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_what_is_wanted_of_an_archive_goes_to_its_place(name, tmp_path):
    members = [("./dtd/images/a/1.jpg", b"one"), ("dtd/images/ü b/2.jpg", b"two"), ("dtd/other", b"x"), ("dtd/l", b"l")]
    archive = packed(tmp_path / name, members)
    made = unpack(archive, tmp_path / "data", {"dtd/images": "images", "dtd/l": "lists/l"})
    assert made == [tmp_path / "data/images", tmp_path / "data/lists/l"]
    found = sorted(str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert found == ["images/a/1.jpg", "images/ü b/2.jpg", "lists/l"], "and nothing else, hidden or not"


@pytest.mark.parametrize("names", [("images/a", "images/a/1"), ("images/" + "n" * 300,)])
@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])
def test_an_archive_of_names_that_no_folder_can_have_is_named_with_one_of_them(names, kind, tmp_path):
    archive = packed(tmp_path / kind, [(name, b"one") for name in names])
    with pytest.raises(ValueError, match=r"must hold what a folder can; got images/"):
        unpack(archive, tmp_path / "in", {"images": "images"})


def test_what_is_there_stays_as_it_is(tmp_path):
    archive = packed(tmp_path / "a.tgz", [("images/1", b"new"), ("labels", b"l")])
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1").write_bytes(b"mine")
    assert unpack(archive, tmp_path, {"images": "images", "labels": "labels"}) == [tmp_path / "labels"]
    assert (tmp_path / "images/1").read_bytes() == b"mine"
    assert unpack(tmp_path / "not there", tmp_path, {"images": "images"}) == [], "an archive is not even opened"


@pytest.mark.parametrize("name", ["../evil", "images/../../evil", "/evil", "C:/evil", "images\\..\\evil"])
@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])
def test_no_archive_writes_outside(name, kind, tmp_path):
    archive = packed(tmp_path / kind, [(name, b"evil"), ("images/1", b"one")])
    with pytest.raises(ValueError, match=r"must hold files inside its folder alone; got .*; it is not unpacked"):
        unpack(archive, tmp_path / "in/side", {"images": "images"})
    assert not list(tmp_path.rglob("evil")) and not list((tmp_path / "in/side").iterdir()), "and nothing of it is left"


def test_links_and_devices_of_an_archive_are_left_out(tmp_path):
    links = [
        ("images/link", (tarfile.SYMTYPE, "/etc/passwd")),
        ("images/hard", (tarfile.LNKTYPE, "../../x")),
        ("images/pipe", (tarfile.FIFOTYPE, "")),
        ("images/deep", (tarfile.SYMTYPE, "..")),
        ("images/1", b"one"),
    ]
    unpack(tar(tmp_path / "a.tgz", links), tmp_path, {"images": "images"})
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["1"]


@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])
def test_an_archive_that_swells_is_refused(kind, tmp_path):
    archive = packed(tmp_path / kind, [("images/1", bytes(3_000_000))])
    assert archive.stat().st_size < 30_000, "a thousand times as much comes out of it"
    with pytest.raises(ValueError, match="must hold at most"):
        unpack(archive, tmp_path / "data", {"images": "images"})
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])
def test_an_archive_that_is_damaged_or_another_is_told_and_leaves_nothing(kind, tmp_path):
    archive = packed(tmp_path / kind, [("images/1", os.urandom(100_000))])
    with pytest.raises(ValueError, match="must hold 'pictures'; got images/1"):
        unpack(archive, tmp_path / "data", {"pictures": "images"})
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(ValueError, match="must be a whole archive; got one that is not"):
        unpack(archive, tmp_path / "data", {"images": "images"})
    assert not list((tmp_path / "data").iterdir())


# Datasets


def textures():
    """Images and split of a made dataset, in the layout of DTD."""
    split = {
        p: [[f"{n}/{n}_{p}.jpg", c, n] for c, n in enumerate(("banded", "dotted"))] for p in ("train", "val", "test")
    }
    images = [(f"dtd/images/{row[0]}", os.urandom(500)) for rows in split.values() for row in rows]
    return images, json.dumps(split).encode()


@pytest.fixture
def made(server, command, tmp_path, monkeypatch):
    """Get a made dataset that this server has: what is changed of its archive, how it is served; the command."""
    images, split = textures()
    archive = packed(tmp_path / "served.tgz", images).read_bytes()
    name, known = "split_zhou_DescribableTextures.json", plugins.table("datasets")["dtd"]
    digests = {name: f"sha256:{hashlib.sha256(split).hexdigest()}"}
    counts = dict.fromkeys(("train", "val", "test"), 2)
    entry = {**known.entry, "folders": ["made"], "digests": digests, "classes": 2, "counts": counts}
    pack = {"name": "made.tgz", "addresses": [server.put("served.tgz", archive)], "unpack": {"dtd/images": "images"}}
    pack |= {"size": len(archive), "digests": {f"md5:{hashlib.md5(archive).hexdigest()}": "the test"}}
    fetch = {"files": [pack, {"name": name, "addresses": [server.put("split", split)], "by_hand": "ask the test"}]}
    made = type(known)("made", entry, fetch)
    monkeypatch.setattr(plugins, "table", lambda role, table=plugins.table: table(role) | {"made": made})
    monkeypatch.setattr(
        plugins, "pick", lambda role, name, pick=plugins.pick: made if name == "made" else pick(role, name)
    )

    def get(*more, ways=(), **changed):
        server.ways["served.tgz"] = [*ways]
        pack.update(changed)
        server.asked.clear()
        return command("data", "get", "made", "--root", tmp_path / "data", *more)

    get.archive, get.folder, get.fetch = archive, tmp_path / "data/made", fetch
    return get


def test_a_dataset_is_got_checked_and_got_no_second_time(made, server):
    code, out, err = made()
    assert code == 0, f"the check must pass; got {out} {err}"
    assert f"into {made.folder}" in out and "to get: " in out, "what will come, and where to"
    assert "present    2 test images" in out and "missing" not in out and "different" not in out
    left = sorted(p.name for p in made.folder.iterdir())
    assert left == ["images", "split_zhou_DescribableTextures.json"], "the archive is gone, and what was written for it"
    code, out, _ = made()
    assert code == 0 and not server.asked and "to get" not in out, "a second time asks for nothing"


def test_a_dataset_whose_download_failed_goes_on(made, server):
    code, out, _ = made(ways=["cut700", 503])
    assert code == 1 and "failed: made.tgz must come from one of its addresses; got status 503" in out
    assert "by hand, 1: put made.tgz into" in out and "adaptkit data get made --root" in out, "and what can be done"
    assert (made.folder / "made.tgz.part").stat().st_size == 700, "what came is kept"
    assert (made.folder / "split_zhou_DescribableTextures.json").exists(), "the other file came"
    code, out, _ = made("--keep", ways=["ranges"])
    assert code == 0 and server.asked == [("served.tgz", "bytes=700-")], "only the rest is asked for"
    assert (made.folder / "made.tgz").read_bytes() == made.archive, "and the archive is kept when that is asked for"


def test_an_archive_that_a_hand_put_there_is_checked_and_left(made, server):
    assert made(addresses=[])[0] == 1
    (made.folder / "made.tgz").write_bytes(b"x" * len(made.archive))
    code, out, _ = made()
    assert code == 1 and "must have md5:" in out and "move it away and get it again" in out, "another file is no use"
    assert (made.folder / "made.tgz").exists() and not (made.folder / "images").exists()
    (made.folder / "made.tgz").write_bytes(made.archive)
    code, out, _ = made()
    assert code == 0 and not server.asked and (made.folder / "made.tgz").exists(), "what a hand put there is not ours"


def test_a_digest_that_nobody_states_is_said_and_remembered(made, server):
    code, out, _ = made(digests={}, size=None)
    found = hashlib.sha256(made.archive).hexdigest()
    assert code == 0 and f"made.tgz: sha256:{found}; nobody states one" in out
    for image in (made.folder / "images").rglob("*.jpg"):
        image.unlink()
    (made.folder / "images").rename(made.folder / "images-before")
    server.files["served.tgz"] = made.archive + b"more"
    code, out, _ = made()
    assert code == 1 and f"must have sha256:{found}; got sha256:" in out, "the next is held to it"


def test_an_archive_in_an_archive_is_held_to_a_digest_of_its_own(made, server, tmp_path):
    server.files["served.tgz"] = packed(tmp_path / "outer.zip", [("in/made2.tgz", made.archive)]).read_bytes()
    inner = {"name": "made2.tgz", "unpack": {"dtd/images": "images"}, "digests": {"md5:" + "0" * 32: "wrong"}}
    outer = {"unpack": {"in/made2.tgz": "made2.tgz"}, "digests": {}, "size": None}
    code, out, _ = made("--keep", **outer, then=inner)
    assert code == 1 and "made2.tgz must have md5:000" in out
    server.asked.clear()
    code, out, _ = made(then={**inner, "digests": {f"md5:{hashlib.md5(made.archive).hexdigest()}": "the test"}})
    assert code == 0 and not server.asked, f"what came out before is not got again; got {out}"


def test_a_disk_without_room_is_told_before_anything_is_got(made, server, monkeypatch):
    free = type("Usage", (), {"free": 5_000_000_000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: free)
    code, out, err = made(size=3_000_000_000)
    assert code == 2 and "must have 6.0 GB free, for archives and what is in them; got 5.0 GB" in err
    assert not server.asked and not made.folder.exists() and "to get: 3.0 GB" in out


def test_a_folder_that_is_a_file_or_has_another_at_work_is_told(made):
    made.folder.parent.mkdir()
    made.folder.write_text("a file")
    code, _, err = made()
    assert code == 2 and "cannot write" in err and "--root" in err, f"got {err}"
    made.folder.unlink()
    made.folder.mkdir()
    with fetching._alone(made.folder):
        code, _, err = made()
    assert code == 2 and "must be filled by one process at a time" in err


def test_what_can_be_got_is_listed_with_who_states_it(command, monkeypatch):
    code, out, _ = command("data", "get", "--list")
    rows = {line.split()[0]: line for line in out.splitlines()[2:] if line}
    assert code == 0, "a list is no check"
    assert rows["dtd"].split()[1:5] == ["625.8", "MB", "for", "research"]
    assert rows["dtd"].endswith("no login")
    assert "partly by hand" in rows["imagenet"] and "> 1.6 MB" in rows["ucf101"], "of which no size is stated"
    listed = {entry["name"]: entry for entry in json.loads(command("data", "get", "--json")[1])}
    assert "tensorflow/datasets" in str(listed["dtd"]["files"][0]["digests"]), "who states a digest"
    assert command("data", "get", "dtdd", "--root", "x")[2].count("did you mean 'dtd'?") == 1
    assert "--root must be given, or ADAPTKIT_DATA set" in command("data", "get", "dtd")[2]


def test_a_dataset_of_a_plugin_needs_no_more_than_files(monkeypatch):
    from adaptkit.runs import plugins
    from adaptkit.runs.offers import offers

    def load(place):
        raise AssertionError("nothing is read")

    load.fetch = {"files": [{"name": "ok.zip", "addresses": ["http://127.0.0.1:1/ok.zip"]}]}
    monkeypatch.setattr(plugins, "table", lambda role: {"mine": load})
    found = offers()["mine"]
    assert (found.title, [file.name for file in found.files], found.hand) == ("mine", ["ok.zip"], "")
    load.fetch = {"files": [{"addresses": []}]}
    with pytest.raises(ValueError, match="`fetch` of dataset 'mine' must have files, each with a name"):
        offers()


def test_pooch_may_be_absent(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    code, out, _ = made()
    assert code == 1 and "pooch must be installed to get files; got none; pip install 'adaptkit-vlm[data]'" in out


def test_images_may_lie_where_other_code_bases_have_them(tmp_path):
    sketch, imagenet, tail = (offers()[name] for name in ("imagenet-sketch", "imagenet", "imagenet-lt"))
    assert not any(offer.filled(tmp_path / "imagenet") for offer in (imagenet, tail))
    (tmp_path / "imagenet/train").mkdir(parents=True)
    (tmp_path / "imagenet/val").mkdir()
    (tmp_path / "imagenet-lt").mkdir()
    (tmp_path / "imagenet-sketch/images").mkdir(parents=True)
    assert imagenet.filled(tmp_path / "imagenet") and tail.filled(tmp_path / "imagenet-lt"), "beside it"
    there = [r.name for r in sketch.files if r.there(tmp_path / "imagenet-sketch", sketch.images)]
    assert there == ["ImageNet-Sketch.zip"], "images is as good as sketch"


@pytest.mark.parametrize("name", FIELD)
def test_what_is_got_of_a_dataset_of_the_field_is_what_is_read(name):
    offer, entry = offers()[name], plugins.table("datasets")[name].entry
    places, remotes = [*offer.places], [*offer.files]
    for remote in remotes:
        remotes += [remote.then] if remote.then else []
        places += remote.unpack.values() or [remote.name]
        assert remote.by_hand or remote.addresses or remote in [r.then for r in remotes], f"{remote.name} from where?"
        assert all(address.startswith("http") for address in remote.addresses)
        for digest, who in remote.digests.items():
            kind, _, value = digest.partition(":")
            assert len(value) == {"sha256": 64, "md5": 32, "git": 40}[kind] and who, f"{remote.name}: {digest} by {who}"
        assert remote.digests or not remote.addresses, f"what comes by itself is held to a digest; {remote.name} is not"
    assert set(entry["files"]) <= {*places}, "every file that is read is got"
    images = [image for image in entry["images"] if image]
    assert offer.places or {*images} & {*places} or entry["images"] == [""], "and the images"
    assert offer.steps or not offer.places, "what a hand puts there has steps"
