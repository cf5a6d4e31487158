"""A class folder that holds .jfif, .avif and .ppm beside .png.

lstein/PhotoMapAI#364; sylikc/jpegview#168; pharmapsychotic/clip-interrogator-ext#50.
"""

import pytest
from adaptkit_plugins.datasets import own_images

from adaptkit.saving.pictures import find_pictures
from tests.test_own_pictures import PILLOW, listed, photos, picture

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")


@FAULT
def test_pictures_of_every_format_are_read_by_folder_csv_and_predict_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    root = photos(tmp_path / "photos", ("cat", "dog"))
    for k, suffix in enumerate((".jfif", ".avif", ".ppm")):
        for i in range(8):
            picture(900 + 50 * k + i, 1).save(root / "dog" / f"{suffix[1:]}{i}{suffix}", format=PILLOW[suffix])
    splits = [own_images.folder(str(root)), own_images.csv_file(str(listed(root)))]
    assert [sum(map(len, (s.train, s.val, s.test))) for s in splits] == [40, 40], "all of them are one's dataset"
    (root / "dog" / "late.heic").write_bytes(b"a phone's own format")
    (note,) = own_images.folder(str(root)).notes
    assert "read 40 of 42 files; left out 1 .csv, 1 .heic" in note, f"what is left out is counted; got {note}"
    found, rest = find_pictures([root])
    assert (len(found), len(rest)) == (40, 2), "and predict reads what folder: reads"
