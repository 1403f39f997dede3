"""Prompts: from the command line or a file to pictures with captions."""

import copy
import json
import re
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from tiny import TINY

PROMPT = "a google emoji of a red fox"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with captioned pictures, and a tiny model of them with a text transformer."""
    from diffusion.cli.main import main

    folder = tmp_path_factory.mktemp("texts")
    (folder / "pictures").mkdir()
    for i in range(30):
        colour = ["red", "green", "blue"][i % 3]
        Image.new("RGB", (8, 8), colour).save(folder / "pictures" / f"{i}.png")
        (folder / "pictures" / f"{i}.txt").write_text(f"a {colour} square")
    config = copy.deepcopy(TINY)
    encoder = {"width": 8, "depth": 1, "heads": 2, "length": 6, "rows": 50}
    stream = {"encoder": {"class_path": "TextTransformer", "init_args": encoder}}
    config["model"]["network"]["init_args"] |= {
        "in_channels": 3,
        "num_classes": None,
        "streams": {"text": {"class_path": "Stream", "init_args": stream}},
    }
    config["data"] = {
        "class_path": "ImageText",
        "init_args": {"root": str(folder / "pictures"), "size": 8, "batch_size": 8},
    }
    config["trainer"]["default_root_dir"] = str(folder / "run")
    config["samples"] = {"every_n_steps": 2, "columns": 2}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(folder / "c.yaml")])
    return folder


def predict(folder, where, *args):
    from diffusion.cli.main import main

    checkpoint = folder / "run/checkpoints/last.ckpt"
    main(["predict", "--ckpt_path", str(checkpoint), "--writer.folder", str(where), *args])


def test_a_prompt_is_drawn_with_its_caption(trained, tmp_path):
    predict(trained, tmp_path / "a", "--prompt", PROMPT, "--data.samples", "3")
    assert json.loads((tmp_path / "a/captions.json").read_text()) == {
        f"00000{i}": PROMPT for i in range(3)
    }
    assert len(list((tmp_path / "a").glob("0*.png"))) == 3
    assert Image.open(tmp_path / "a/grid.png").size[0] > 256


def test_prompts_of_a_file_are_drawn_in_turn_and_matter(trained, tmp_path):
    (tmp_path / "p.txt").write_text(f"a red square\n\n{PROMPT}\n")
    flags = ["--prompts", str(tmp_path / "p.txt"), "--data.samples", "4"]
    predict(trained, tmp_path / "a", *flags)
    captions = json.loads((tmp_path / "a/captions.json").read_text())
    assert list(captions.values()) == ["a red square", PROMPT] * 2
    one = Image.open(tmp_path / "a/000001.png")
    predict(trained, tmp_path / "b", "--prompt", PROMPT, "--data.samples", "2")
    assert one.tobytes() == Image.open(tmp_path / "b/000001.png").tobytes()


def test_all_prompts_and_all_files_are_drawn(trained, tmp_path):
    flags = ["--prompt", PROMPT, "--prompt", "[red]", "--data.samples", "3"]
    predict(trained, tmp_path / "a", *flags)
    captions = json.loads((tmp_path / "a/captions.json").read_text())
    assert list(captions.values()) == [PROMPT, "[red]", PROMPT]
    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-16")
    (tmp_path / "q.txt").write_text("three\n", encoding="utf-8-sig")
    files = ["--prompts", str(tmp_path / "p.txt"), f"--prompts={tmp_path / 'q.txt'}"]
    predict(trained, tmp_path / "b", *files, "--data.samples", "4")
    captions = json.loads((tmp_path / "b/captions.json").read_text())
    assert list(captions.values()) == ["one", "two", "three", "one"]


def test_prompts_of_training_stay_but_others_may_be_asked_for(trained, tmp_path):
    from diffusion.cli.checkpoint_config import from_checkpoint

    saved = torch.load(trained / "run/checkpoints/last.ckpt", weights_only=True)
    config = yaml.safe_load(saved["config"]) | {"prompt": "red"}
    torch.save(saved | {"config": yaml.safe_dump(config)}, tmp_path / "x.ckpt")
    with from_checkpoint(["predict", "--ckpt_path", str(tmp_path / "x.ckpt")]) as args:
        assert "prompt" not in yaml.safe_load(args[1].removeprefix("--config="))


def test_without_prompts_the_captions_of_the_data_are_drawn(trained, tmp_path):
    predict(trained, tmp_path / "a", "--data.samples", "4")
    captions = json.loads((tmp_path / "a/captions.json").read_text())
    assert {text.split()[-1] for text in captions.values()} == {"square"}


@pytest.mark.slow
def test_pictures_never_get_other_captions(trained, tmp_path, capsys):
    shutil.copytree(trained / "pictures", tmp_path / "pictures")
    flags = ["--data.root", str(tmp_path / "pictures"), "--data.samples", "2"]
    predict(trained, tmp_path / "a", *flags)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    for file in (tmp_path / "pictures").glob("*.txt"):
        file.write_text(file.read_text().replace("square", "block"))
    with pytest.raises(SystemExit):
        predict(trained, tmp_path / "a", *flags)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "captions.json there has " in line
    assert ' square" for 000000, now "a ' in line
    for other, words in (
        (["--prompt", PROMPT], f'data.prompts null, now "{PROMPT}"'),
        (["--data.ask", "train"], 'data.ask "val", now "train"'),
    ):
        with pytest.raises(SystemExit):
            predict(trained, tmp_path / "a", *flags, *other)
        assert words in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


def test_the_encoder_was_trained(trained):
    saved = torch.load(trained / "run/checkpoints/last.ckpt", weights_only=True)
    name = "denoiser.network.streams.encoders.text.embedding.weight"
    assert name in saved["state_dict"]
    assert (trained / "run/samples/step_0000002_raw.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "a", "--prompts", "b"], "prompt: it was given beside prompts"),
        (["--prompts", "no.txt"], "prompts: no.txt; expected a file of texts, there is none"),
        (["--prompts", "latin.txt"], "latin.txt; expected a text in UTF-8, line 1 is not"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    trained, tmp_path, capsys, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("Füchse".encode("latin-1"))
    with pytest.raises(SystemExit):
        predict(trained, tmp_path / "a", *flags)
    assert message in capsys.readouterr().err


def test_prompts_need_data_with_captions(run, capsys):
    with pytest.raises(SystemExit):
        run("predict", "--config", "tiny.yaml", "--prompt", "a")
    assert "prompt: 'a'; expected data with captions" in capsys.readouterr().err


def test_a_network_that_reads_texts_needs_data_with_texts(trained, capsys):
    from diffusion.cli.main import main

    config = yaml.safe_load((trained / "c.yaml").read_text())
    config["data"] = {"class_path": "Digits"}
    config["model"]["network"]["init_args"]["in_channels"] = 1
    config["trainer"]["default_root_dir"] = str(trained / "other")
    (trained / "d.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(trained / "d.yaml")])
    assert "data: Digits has no texts; expected data with captions" in capsys.readouterr().err


def test_texts_that_are_cut_are_counted_once(trained, tmp_path):
    long = "a red square on a green square on a blue square"
    (tmp_path / "prompts.txt").write_text(f"{long}\na red square\n{long[:-7]}\n")
    with pytest.warns(UserWarning, match=r"length: 6; 2 of 3 texts .* 'a red .*', has 12") as said:
        predict(trained, tmp_path / "p", "--prompts", str(tmp_path / "prompts.txt"))
    assert sum("are cut" in str(warning.message) for warning in said) == 1


def test_an_empty_prompt_is_said_once_and_drawn_as_no_text(trained, tmp_path):
    """Its picture is the one whose condition is ∅; nobody is told of what nobody gave."""
    from diffusion.cli.flags import hand_on_prompts
    from diffusion.pipeline import Pipeline

    flags = ["--prompt", "", "--prompt", "a red square", "--prompt", " ", "--data.samples", "3"]
    with pytest.warns(UserWarning, match="prompt: 2 of 3 empty; drawn without a text") as said:
        predict(trained, tmp_path / "a", *flags)
    assert sum("empty" in str(warning.message) for warning in said) == 1
    captions = json.loads((tmp_path / "a/captions.json").read_text())
    assert list(captions.values()) == ["", "a red square", ""]
    system = Pipeline.from_pretrained(trained / "run/checkpoints/last.ckpt").system
    contract, cond = system.denoiser.contract, system.condition({"text": ["", "a red square"]})
    assert contract.null
    for name, null in contract.null.items():
        told = [torch.equal(row, null) for row in cond.values[name]]
        assert told == [True, False], name
    data = SimpleNamespace(init_args={"prompts": [""]})  # as data.image_prompt leaves it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hand_on_prompts(
            SimpleNamespace(prompt=None, prompts=None, upsample_prompt=False, data=data)
        )


@pytest.fixture(scope="module")
def upsampler(trained):
    """The checkpoint of a tiny upsampler of prompts."""
    from diffusion.cli.main import main

    network = {"width": 8, "reads": 1, "depth": 1, "looks": 1, "length": 32, "rows": 300}
    config = copy.deepcopy(TINY)
    config["model"] = {
        "class_path": "PromptUpsampler",
        "init_args": {"network": {"class_path": "PromptNetwork", "init_args": network}},
    }
    data = {"root": str(trained / "pictures"), "size": 8, "batch_size": 8, "prompt": "caption"}
    config["data"] = {"class_path": "ImageText", "init_args": data}
    config["trainer"]["default_root_dir"] = str(trained / "upsampler")
    (trained / "u.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(trained / "u.yaml")])
    return str(trained / "upsampler/checkpoints/last.ckpt")


def test_prompts_are_upsampled_and_both_are_shown(trained, upsampler, tmp_path, monkeypatch):
    from diffusion.callbacks import writer

    shown = []
    real = writer.captioned
    monkeypatch.setattr(
        writer, "captioned", lambda x, texts, n: (shown.extend(texts), real(x, texts, n))[1]
    )
    rewrite = "diffusion.systems.captioning.prompt_upsampler.PromptUpsampler.rewrite"
    monkeypatch.setattr(rewrite, lambda _, prompts: [f"{x}. blue" for x in prompts])
    flags = ["--prompt", PROMPT, "--prompt", "a narwhal", "--data.samples", "3"]
    predict(trained, tmp_path / "a", *flags, "--upsample_prompt", upsampler)
    captions = list(json.loads((tmp_path / "a/captions.json").read_text()).values())
    assert captions[0] == captions[2]
    for short, long, line in zip((PROMPT, "a narwhal"), captions, shown):
        assert long == f"{short}. blue"
        assert line == f"{short} → {long}"


def test_what_cannot_be_upsampled_is_said(trained, upsampler, tmp_path, capsys):
    for flags, error in (
        (["--upsample_prompt", upsampler], "upsample_prompt: .*; expected --prompt too"),
        (["--prompt", "a", "--upsample_prompt", "none.ckpt"], "upsample_prompt: none.ckpt"),
        (
            ["--prompt", "a", "--upsample_prompt", str(trained / "run/checkpoints/last.ckpt")],
            "upsample_prompt: .*last.ckpt",
        ),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            predict(trained, tmp_path / "b", *flags)
        assert end.value.code not in (0, None)
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(error, last), last
