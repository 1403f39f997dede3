"""`diffusion caption`, with a captioner that was hardly trained."""

import copy
import json

import facts
import pytest
from PIL import Image
from tiny import TINY

from diffusion.cli.captioning.caption import write_missing as write_all
from diffusion.cli.captioning.caption_files import OneFile
from diffusion.cli.captioning.describer import OwnCaptioner
from diffusion.networks import Beam
from diffusion.systems.captioning.captioner import Captioner


@pytest.fixture(scope="module")
def captioner(once):
    """The checkpoint of a captioner of the bars, trained for four steps."""
    with once("captioned") as made:
        made.write("bars.yaml", {**copy.deepcopy(TINY), **facts.config()})
        made("fit", "--config", "bars.yaml")
    return made.last


@pytest.fixture
def pictures(tmp_path):
    """A folder with pictures, one of them in a subfolder."""
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    for name, x in zip(("a.png", "b.png", "sub/c.png"), facts.coloured(3)):
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(root / name)
    return root


def caption(run, captioner, *flags):
    run("caption", "--trust", "--ckpt_path", captioner, *flags)


def test_every_picture_gets_its_caption(run, captioner, pictures, capsys):
    caption(run, captioner, "--folder", pictures)
    found = {path.name: path.read_text() for path in pictures.rglob("*.txt")}
    assert set(found) == {"a.txt", "b.txt", "c.txt"}
    page = (pictures / "captions.html").read_text()
    assert 'src="sub/c.png"' in page
    assert "3 pictures captioned, 0 had captions" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_captions_that_are_there_stay_and_a_second_call_goes_on(run, captioner, pictures, capsys):
    (pictures / "a.txt").write_text("mine")
    caption(run, captioner, "--folder", pictures)
    assert (pictures / "a.txt").read_text() == "mine"
    assert "mine" in (pictures / "captions.html").read_text()
    (pictures / "b.txt").unlink()
    before = (pictures / "sub/c.txt").stat().st_mtime_ns
    caption(run, captioner, "--folder", pictures)
    assert (pictures / "sub/c.txt").stat().st_mtime_ns == before
    assert "1 pictures captioned, 2 had captions" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_several_captions_in_json_do_not_depend_on_the_company(run, captioner, pictures):
    flags = ["--format", "json", "--n", "3", "--temperature", "1", "--top_p", "1", "--seed", "5"]
    caption(run, captioner, "--folder", pictures, *flags)
    found = {path: path.read_text() for path in pictures.rglob("*.json")}
    texts = json.loads(found[pictures / "a.json"])["synthetic"]
    assert len({*texts}) == 3
    (pictures / "b.json").unlink()
    caption(run, captioner, "--folder", pictures, *flags, "--batch_size", "1")
    assert {path: path.read_text() for path in pictures.rglob("*.json")} == found


def test_unreadable_pictures_are_left_out_and_named(run, captioner, pictures, capsys):
    (pictures / "a.png").write_bytes(b"no picture")
    caption(run, captioner, "--folder", pictures)
    assert not (pictures / "a.txt").exists()
    assert (pictures / "b.txt").exists()
    assert "left out 1 that cannot be read: a.png" in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_of_one_name_share_a_caption(run, captioner, pictures):
    Image.open(pictures / "b.png").convert("RGB").save(pictures / "a.jpg")
    caption(run, captioner, "--folder", pictures)
    assert len([*pictures.rglob("*.txt")]) == 3


@pytest.mark.slow
def test_a_folder_without_pictures_or_permission_is_refused(
    run, refused, captioner, pictures, tmp_path, monkeypatch
):
    given = ["caption", "--trust", "--ckpt_path", captioner]
    (tmp_path / "empty").mkdir()
    assert "expected pictures" in refused(*given, "--folder", "empty")
    assert "there is none" in refused(*given, "--folder", "nowhere")
    for name in ("a.png", "b.png", "sub/c.png"):
        (pictures / name).write_bytes(b"no picture")
    assert "all 3 without a caption cannot" in refused(*given, "--folder", "pictures")

    def closed(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("diffusion.common.files._probe", closed)
    line = refused(*given, "--folder", "pictures")
    assert "folder: pictures; expected a folder that can be written to (permission denied)" in line
    assert not [*pictures.rglob("*.txt")]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "expected one of them"),
        pytest.param(
            ["--folder", "pictures", "--output", "x.json"],
            "expected one of them",
            marks=pytest.mark.slow,
        ),
        (["--folder", "pictures", "--n", "2"], "n: 2"),
        pytest.param(
            ["--folder", "pictures", "--n", "2", "--temperature", "1"],
            "n: 2",
            marks=pytest.mark.slow,
        ),
        (["--folder", "pictures", "--temperature", "0"], "temperature: 0"),
        pytest.param(["--folder", "pictures", "--beam", "0"], "width: 0", marks=pytest.mark.slow),
        pytest.param(
            ["--folder", "pictures", "--batch_size", "0"], "batch_size: 0", marks=pytest.mark.slow
        ),
    ],
)
def test_wrong_flags_are_refused(refused, captioner, pictures, flags, words):
    assert words in refused("caption", "--trust", "--ckpt_path", captioner, *flags)


@pytest.mark.slow
def test_other_models_write_no_captions(refused, fitted, pictures):
    line = refused("caption", "--ckpt_path", fitted.last, "--folder", pictures)
    assert "expected a Captioner's checkpoint, this one is of Diffusion" in line


@pytest.mark.slow
def test_the_data_of_a_checkpoint_goes_into_one_file(run, refused, captioner, capsys):
    given = ["--output", "captions.json"]
    caption(run, captioner, *given)
    found = json.loads((run.folder / "captions.json").read_text())
    assert list(found) == [f"bar-{i}" for i in range(12)]
    assert all(len(texts) == 1 for texts in found.values())
    some = {"bar-3": ["mine"], **{name: found[name] for name in list(found)[4:]}}
    (run.folder / "captions.json").write_text(json.dumps(some))
    caption(run, captioner, *given)
    again = json.loads((run.folder / "captions.json").read_text())
    assert again == {**found, "bar-3": ["mine"]}
    assert "data:image/png" in (run.folder / "captions.html").read_text()
    (run.folder / "captions.json").write_text("[1, 2]")
    line = refused("caption", "--trust", "--ckpt_path", captioner, *given)
    assert "output: captions.json is there; expected JSON" in line


@pytest.mark.slow
def test_what_was_written_before_an_interruption_stays(captioner, tmp_path):
    module = Captioner.load_from_checkpoint(captioner, trust=True).eval()
    data = facts.Bars(copies=1)
    data.setup("fit")
    to = OneFile(tmp_path / "found.json", data.names, data.pictures)
    read, seen = to.read, []

    def interrupted(name):
        seen.append(name)
        if len(seen) > 4:
            raise KeyboardInterrupt
        return read(name)

    to.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        write_all(OwnCaptioner(module, Beam(), seed=0, n=1), to, batch_size=2)
    assert list(json.loads((tmp_path / "found.json").read_text())) == data.names[:4]
