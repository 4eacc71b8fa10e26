"""Hostile files run no code and reach no other file; they raise a CheckpointError."""

import pickle
import random
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from lightning_mi import AtomicCheckpointIO, CheckpointError, MIEstimationModule
from lightning_mi.checkpoints.allowed_classes import check_recorded
from lightning_mi.checkpoints.loading import read_checkpoint
from lightning_mi.cli.checkpoint_lookup import find_checkpoint
from lightning_mi.cli.main import main
from tests.checkpoints.test_module_checkpoints import CONFIG

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class Payload:
    """Creates a file if it is unpickled without `weights_only=True`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return (self.function, self.arguments)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a module that creates a file `witness` if it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("hostile_parts.py").write_text("open('witness', 'w')\n\ndef run(*_, **__):\n    open('witness', 'w')\n")
    yield tmp_path
    assert not Path("witness").exists()
    assert "hostile_parts" not in sys.modules


def checkpoint(path="hostile.ckpt", **changes):
    """A checkpoint of the command line with other hyper-parameters."""
    parts = CONFIG["model"]["init_args"]
    recorded = {"_instantiator": INSTANTIATOR, "_class_path": "lightning_mi.MIEstimationModule", **parts}
    torch.save({"state_dict": {}, "callbacks": {}} | {"hyper_parameters": recorded | changes}, path)
    return path


def error_of(path="hostile.ckpt"):
    with pytest.raises(CheckpointError) as caught:
        MIEstimationModule.load_from_checkpoint(path)
    return str(caught.value)


# 1 and 2: code in the pickle, of both formats.


@pytest.mark.parametrize(
    ("save", "payload"),
    [
        (torch.save, Payload(open, "witness", "w")),
        (lambda content, path: Path(path).write_bytes(pickle.dumps(content, 2)), Payload(exec, "open('witness', 'w')")),
    ],
)
def test_pickle_with_code_raises(save, payload, here):
    save({"state_dict": {}, "payload": payload}, "hostile.ckpt")
    assert "can run code" in error_of()
    with pytest.raises(CheckpointError, match="can run code"):
        AtomicCheckpointIO().load_checkpoint("hostile.ckpt", weights_only=True)
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["fit", "--config", "config.yaml", "--ckpt_path", "hostile.ckpt"]) == 2


# 3 to 5: hyper-parameters that name code.


@pytest.mark.parametrize("name", ["hostile_parts.run", None])
def test_foreign_instantiator_raises(name, here):
    checkpoint(_instantiator=name)
    assert "instantiator" in error_of()


@pytest.mark.parametrize("name", ["hostile_parts.Module", "torch.nn.Linear", "lightning_mi.nothing", 7])
def test_class_path_of_another_class_raises(name, here):
    checkpoint(_class_path=name)
    assert "names" in error_of()


HOSTILE_PARTS = {
    "a class path": {"critic": {"class_path": "hostile_parts.run"}},
    "a function of an imported module": {"optimizer": {"class_path": "os.system"}},
    "a bare path": {"optimizer": "os.system"},
    "a bare path of a module to import": {"scheduler": "hostile_parts.run"},
    "one in a list": {"encoder": [{"class_path": "torch.nn.Identity"}, {"class_path": "subprocess.Popen"}]},
    "one in another's arguments": {
        "critic": {
            "class_path": "lightning_mi.critics.CalibratedCritic",
            "init_args": {"critic": {"class_path": "hostile_parts.run", "init_args": {}}},
        }
    },
    "one in text that a parser reads": {"critic": '{"class_p\\u0061th": "hostile_parts.run"}'},
    "one under a name with a dot": {"critic.class_path": "os.system"},
    "a package with an attribute to import": {"optimizer": "xml.dom.minidom.parse"},
    "a path in the main module": {"optimizer": "__main__.run"},
}


@pytest.mark.parametrize("changes", HOSTILE_PARTS.values(), ids=HOSTILE_PARTS)
def test_hyper_parameters_that_name_code_raise(changes, here):
    checkpoint(**changes)
    assert "names" in error_of()


def test_old_names_of_hyper_parameters_are_checked(here):
    torch.save({"state_dict": {}, "hparams": {"_instantiator": "os.system"}}, "hostile.ckpt")
    assert "instantiator 'os.system'" in error_of()


def test_honest_hyper_parameters_pass():
    recorded = {"_instantiator": INSTANTIATOR, "_class_path": "lightning_mi.MIEstimationModule"}
    plain = {
        "name": "run.v2",
        "note": "a: b",
        "time": "12:x",
        "broken": "a: [",
        "rate": 0.1,
        "bound": "lightning_mi.bounds.NWJ",
        "empty": {},
    }
    check_recorded(recorded | CONFIG["model"]["init_args"] | plain, (), MIEstimationModule)
    check_recorded({"optimizer": "os.system"}, (), MIEstimationModule)  # not imported by anything
    check_recorded(recorded | {"optimizer": "os.system"}, ("optimizer",), MIEstimationModule)  # replaced


# 6 and 7: forged sizes.


def test_tensor_larger_than_its_storage_raises(here):
    torch.save({"state_dict": {"weight": torch.zeros(64, 3)}}, "honest.ckpt")
    with zipfile.ZipFile("honest.ckpt") as honest, zipfile.ZipFile("hostile.ckpt", "w") as hostile:
        for name in honest.namelist():
            content = honest.read(name)
            if name.endswith("data.pkl"):
                assert content.count(b"K@K\x03") == 1  # the shape
                content = content.replace(b"K@K\x03", b"J\xff\xff\xff\x7fK\x03")
            hostile.writestr(name, content)
    assert "cannot be read" in error_of()


def test_weights_of_another_shape_raise(here):
    assert main(["fit", "--config", str(config())]) == 0
    [path] = here.rglob("*.ckpt")
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("weight"))
    content["state_dict"][name] = torch.zeros(1).expand(2**40)  # four bytes that claim to be four terabytes
    torch.save(content, "hostile.ckpt")
    assert "does not fit this configuration" in error_of()
    assert main(["fit", "--config", str(config()), "--ckpt_path", "hostile.ckpt"]) == 2


def test_corrupted_bytes_raise_checkpoint_errors_only(here):
    honest = Path(checkpoint("honest.ckpt")).read_bytes()
    rng, errors = random.Random(0), 0
    for _ in range(300):
        changed = bytearray(honest)
        for _ in range(8):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        Path("hostile.ckpt").write_bytes(changed)
        try:
            read_checkpoint(Path("hostile.ckpt"))
        except CheckpointError:
            errors += 1
    assert errors > 100


# 8: YAML tags.


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch witness']",
        "!!python/name:hostile_parts.run",
    ],
)
def test_yaml_tags_raise(tag, here, capsys):
    Path("hostile.yaml").write_text(f"seed_everything: {tag}\n")
    assert main(["fit", "--config", "hostile.yaml"]) == 2
    assert "error" in capsys.readouterr().err
    checkpoint(critic=f"class_path: {tag}")
    error_of()


# 9: paths outside the run.


def test_best_checkpoint_outside_the_run_raises(here):
    outside = here / "outside.ckpt"
    torch.save({"state_dict": {}}, outside)
    run = here / "run"
    run.mkdir()
    for recorded in (outside, run / ".." / "outside.ckpt", "../outside.ckpt"):
        state = {"ModelCheckpoint{}": {"monitor": "val/mi", "best_model_path": str(recorded)}}
        torch.save({"state_dict": {}, "callbacks": state}, run / "last.ckpt")
        with pytest.raises(CheckpointError, match="does not exist or is outside the folders of these runs"):
            find_checkpoint("best", [run])


# 10: URLs.


def test_url_raises(here, capsys):
    assert "Got the URL" in error_of("http://127.0.0.1:1/a.ckpt")
    assert main(["fit", "--config", str(config()), "--ckpt_path", "http://127.0.0.1:1/a.ckpt"]) == 2
    assert "Got the URL" in capsys.readouterr().err


def test_unsafe_loading_arguments_raise(here):
    checkpoint()
    for arguments in ({"weights_only": False}, {"hparams_file": "hparams.yaml"}):
        with pytest.raises(CheckpointError, match="could run code"):
            MIEstimationModule.load_from_checkpoint("hostile.ckpt", **arguments)


def config():
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    return Path("config.yaml")
