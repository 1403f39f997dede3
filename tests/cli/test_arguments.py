"""What stands on the command line, and in which order it counts."""

import inspect
import json

import pytest
import yaml

from diffusion.cli import arguments, commands, yaml_reader
from diffusion.cli.arguments import arranged


def printed(run, capsys, *args):
    """What the parser makes of arguments."""
    with pytest.raises(SystemExit) as end:
        run(*args, "--print_config")
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.fixture
def files(run, tiny):
    run.write("more.yaml", {"trainer": {"max_steps": 2}, "data": {"init_args": {"batch_size": 2}}})
    run.write("network.yaml", {"class_path": "UNet", "init_args": {"channels": 16, "groups": 8}})
    return run


def test_flags_win_over_files_wherever_they_stand(files, capsys):
    flags = ("--trainer.max_steps", "7", "--data.batch_size=5")
    for args in (
        ("fit", *flags, "--config", "tiny.yaml", "--config=more.yaml"),
        ("fit", "-c", "tiny.yaml", *flags, "-c", "more.yaml"),
        ("fit", "--config", "tiny.yaml", "--config", "more.yaml", *flags),
    ):
        config = printed(files, capsys, *args)
        assert config["trainer"]["max_steps"] == 7
        assert config["data"]["init_args"]["batch_size"] == 5


def test_null_is_nothing_however_deep_it_stands(files, capsys):
    flags = ["--model.network.num_classes", "null", "--model.lr_scheduler", "null"]
    config = printed(files, capsys, "fit", "--config", "tiny.yaml", *flags)["model"]["init_args"]
    assert config["network"]["init_args"]["num_classes"] is None
    assert config["lr_scheduler"] is None
    files.write(
        "null.yaml", {"model": {"init_args": {"network": {"init_args": {"channels": None}}}}}
    )
    for more in (["--model.network.channels", "null"], ["--config", "null.yaml"]):
        with pytest.raises(SystemExit):
            files("fit", "--config", "tiny.yaml", *more)
        assert "model.network.channels: None; expected int" in capsys.readouterr().err


def test_a_later_file_wins_over_an_earlier_one(files, capsys):
    files.write("steps.yaml", {"trainer": {"max_steps": 2}})
    for names, steps in ((("tiny.yaml", "steps.yaml"), 2), (("steps.yaml", "tiny.yaml"), 4)):
        config = printed(files, capsys, "fit", "-c", names[0], "-c", names[1])
        assert config["trainer"]["max_steps"] == steps


def test_flags_win_over_the_checkpoint_too(fitted, files, capsys):
    given = ("--trainer.max_steps=9", "--config=more.yaml", "--ckpt_path", fitted.last)
    config = printed(files, capsys, "fit", *given)
    assert config["trainer"]["max_steps"] == 9
    assert config["data"]["init_args"]["batch_size"] == 2


def test_a_whole_may_stand_behind_its_parts(files, capsys):
    folder = ("--data.root", "pictures", "--data.size=8", "--data", "ImageFolder")
    config = printed(files, capsys, "fit", *folder, "--config", "tiny.yaml")["data"]
    assert config["class_path"] == "diffusion.data.ImageFolder"
    assert config["init_args"]["root"] == "pictures"
    network = ("--model.network.channels=8", "--model.network", "network.yaml", "-c", "tiny.yaml")
    config = printed(files, capsys, "fit", *network)["model"]["init_args"]["network"]["init_args"]
    assert (config["channels"], config["groups"]) == (8, 8)


def test_what_is_added_to_a_list_keeps_its_order_and_its_arguments(files, capsys):
    key = "--model.sampler.guidance"
    flags = (f"{key}+=ClassifierFree", f"{key}.scale=3", f"{key}+", "Dynamic", key, "[Static]")
    config = printed(files, capsys, "fit", *flags, "--config", "tiny.yaml")
    guidance = config["model"]["init_args"]["sampler"]["init_args"]["guidance"]
    assert [g["class_path"].rsplit(".", 1)[-1] for g in guidance] == [
        "Static",
        "ClassifierFree",
        "Dynamic",
    ]
    assert guidance[1]["init_args"]["scale"] == 3


def test_of_a_flag_that_is_repeated_the_last_counts_with_a_word(capsys):
    words = ["fit", "--trainer.max_steps", "3", "--trainer.max_steps=5", "--wandb=off"]
    assert arranged([*words, "--wandb", "off"]) == ["fit", "--trainer.max_steps=5", "--wandb=off"]
    assert capsys.readouterr().err == "trainer.max_steps: given twice, 3 and 5; 5 counts\n"


@pytest.mark.parametrize("second", ["[4]", "4"])
def test_a_list_that_is_repeated_is_refused(refused, second):
    line = refused("fit", "-c", "tiny.yaml", "--data.labels", "[3]", "--data.labels", second)
    assert line.startswith(f"data.labels: given twice, [3] and {second}; expected one list")


def test_all_prompts_are_kept():
    words = ["predict", "--prompt", "a [red] 'fox', \"big\"", "--wandb=off", "--prompt=-7: 🦊"]
    _, wandb, prompts = arranged(words)
    assert wandb == "--wandb=off"
    assert json.loads(prompts.removeprefix("--prompt=")) == ["a [red] 'fox', \"big\"", "-7: 🦊"]
    assert arranged(["predict", "--prompt", "null"]) == ["predict", "--prompt=null"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-trainer.max_steps", "3"], "-trainer.max_steps: .*perhaps --trainer.max_steps$"),
        (["-config", "x.yaml"], "-config: .*perhaps --config$"),
        (["trainer.max_steps=3"], "perhaps --trainer.max_steps=3$"),
        (["tiny.yaml"], "perhaps --config tiny.yaml$"),
        (["--wandb", "off", "extra"], "extra: no flag; expected --KEY VALUE$"),
        (["--"], "--: no flag; expected"),
        (["--wandb"], "wandb: no value; expected one, --wandb VALUE"),
        (["--wandb", "--trainer.max_steps", "3"], "wandb: no value"),
        (["--modle.p_uncond", "1"], "modle.p_uncond: .*'model.p_uncond'"),
        (["--sampler.steps", "1"], "sampler.steps: .*'model.sampler.steps'"),
        (["--ckpt_pth", "1"], "ckpt_pth: .*'ckpt_path'"),
        (["--seed", "1"], "seed: .*'seed_everything'"),
        (["--foo.bar", "1"], "foo.bar: no such key; see --help"),
        (["--config="], "config: ''; expected a file, there is none"),
    ],
)
def test_what_is_no_flag_is_refused(words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        arranged(["fit", *words])


def test_numbers_and_texts_may_begin_with_a_dash():
    words = ["fit", "--trainer.max_steps", "-1", "--a.b", "-1e-3"]
    assert arguments.split(words[1:]) == [
        arguments.Flag("trainer.max_steps", "-1"),
        arguments.Flag("a.b", "-1e-3"),
    ]


@pytest.mark.parametrize("before", ["--config", "-c", "--confg"])
def test_the_command_comes_first(refused, before):
    assert "no such command; expected one first: fit" in refused(before, "tiny.yaml", "fit")


WRONG = {
    "a: 1\nb: 2\na: 3": "the key 'a' is there twice, in line 3",
    "trainer: {max_steps: 3, max_steps: 4}": "'max_steps' is there twice, in line 1",
    "trainer: &t {max_steps: 3}\nema: {a: 1,\n a: 2}": "'a' is there twice, in line 3",
    "": "expected sections such as model and trainer, it is empty",
    "[1, 2]": "it is a list",
    "{model: [1, ": "in line 2",
    "{trainr: {max_steps: 3}}": "trainr.max_steps: no such key; the nearest is 'trainer.max_steps'",
    "trainer: 3": "trainer: 3; expected keys with values below it",
    "trainer:": "trainer: null; expected keys with values below it",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_configuration_is_refused(refused, tmp_path, text):
    (tmp_path / "wrong.yaml").write_text(f"{text}\n")
    line = refused("fit", "--config", "tiny.yaml", "--config", "wrong.yaml")
    assert WRONG[text] in line


def test_a_key_is_there_once_in_what_a_flag_says_too(refused, tmp_path):
    (tmp_path / "m.yaml").write_text("class_path: Diffusion\ninit_args: {start: a, start: b}")
    flags = (["--model", "m.yaml"], ["--model.network", "{channels: 8, channels: 16}"])
    for flag, key in zip(flags, ("start", "channels")):
        assert f"the key '{key}' is there twice" in refused("fit", "--config", "tiny.yaml", *flag)


def test_merged_keys_are_no_repetition():
    text = "x: &x {decay: 0.5}\nema: {<<: *x, decay: 0.7}"
    assert yaml_reader.read_yaml(text, "x")["ema"] == {"decay": 0.7}


def test_the_nearest_file_is_named(refused, tmp_path):
    (tmp_path / "configs/sample").mkdir(parents=True)
    (tmp_path / "configs/ddpm_folder.yaml").touch()
    (tmp_path / "configs/sample/ddim50.yaml").touch()
    line = refused("fit", "--config", "configs/ddpm_foldr.yaml")
    assert line.endswith("there is none; the nearest is configs/ddpm_folder.yaml")
    assert "nearest is configs/sample/ddim50.yaml" in refused("fit", "--config", "ddim50.yaml")
    assert "this is a folder" in refused("fit", "--config", "configs")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_mark_says_the_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("Füchse\n", encoding=encoding)
    assert arguments.decoded(tmp_path / "a.txt", "prompts") == "Füchse\n"


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fox\nf\xfcchse\n")
    with pytest.raises(ValueError, match=r"prompts: .*a.txt; expected a text in UTF-8, line 2 is"):
        arguments.decoded(tmp_path / "a.txt", "prompts")


def test_the_keys_are_those_of_the_parsers(monkeypatch):
    import lightning as L

    from diffusion.cli import main

    class Built(Exception):
        pass

    def parse(self, parser, args):
        parsers = self._subcommand_parsers.values()
        found.update(str(a.dest).split(".")[0] for p in parsers for a in p._actions)
        raise Built

    found = set()
    monkeypatch.setattr(main.CLI, "parse_arguments", parse)
    with pytest.raises(Built):
        main.CLI(
            *(L.LightningModule, L.LightningDataModule),
            **dict.fromkeys(("subclass_mode_data", "subclass_mode_model"), True),
            parser_class=main.Parser,
            auto_configure_optimizers=False,
        )
    assert found - {"==SUPPRESS=="} | {"print_config"} == set(arguments.KEYS)


def test_the_parts_are_those_of_the_model():
    from diffusion.cli import flags
    from diffusion.systems.diffusion import Diffusion

    assert set(arguments.PARTS) == set(inspect.signature(Diffusion).parameters)
    assert set(arguments.SECTIONS) <= {*flags.SECTIONS, "trainer"}


def test_commands_without_a_trainer_lose_nothing_either(monkeypatch, capsys):
    got = []
    monkeypatch.setattr(commands, "imported", lambda name: lambda *a, **k: got.append((a, k)))
    flags = ["--config", "a.yaml", "--to=diffusers", "--ckpt", "x", "--config=b.yaml"]
    commands.run("export", [*flags, "--output=y", "--output", "z"])
    commands.run("compare", ["a", "--output", "x", "b"])
    (_, exported), (compared, _) = got
    assert exported["config"] == ["a.yaml", "b.yaml"]
    assert exported["output"] == "z"
    assert compared == ("a", "b")
    assert capsys.readouterr().err == "output: given twice, y and z; z counts\n"


def test_a_function_is_declared_as_it_is():
    for name in commands.COMMANDS:
        function, declared = commands.imported(name), commands.declared(name)
        assert inspect.signature(function, eval_str=True) == inspect.signature(declared)
        assert function.__doc__ == declared.__doc__
