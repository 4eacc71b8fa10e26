"""Misspelled names on the command line: each error suggests the right one."""

import re
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from lightning_mi.cli.main import main
from lightning_mi.utilities.recipe_registry import find_file
from tests.helpers.command_line import QUIET, WATCH, Watch, error_of


class Bar(Callback):
    """Records what the progress bar shows."""

    metrics: dict[str, float]

    def on_fit_end(self, trainer, pl_module):
        Bar.metrics = dict(trainer.progress_bar_metrics)


GAUSSIAN = ["fit", "--config", "gaussian"]


def error_with_status_2(arguments, capsys):
    """The error message of a failing command, whether it returns or exits."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    [message] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    return message


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["fti", "--config", "gaussian"], "fit"),
        (["bnech", "gaussian"], "bench"),
        (["cp", "gausian"], "gaussian"),
        (["bench", "gausian"], "gaussian"),
        (["bench", "supervised/digts"], "supervised/digits"),
        (["bench", "gausian.yaml"], "gaussian"),
        (["bench", "gaussian", "--losses", "NVJ"], "NWJ"),
        (["bench", "gaussian", "--loses", "NWJ"], "--losses"),
        (["bench", "gaussian", "--logger", "wandbb"], "wandb"),
        (["bench", "gaussian", "--preset", "papr"], "paper"),
        (["bench", "supervised", "--data", "cifr10"], "cifar10"),
        (["bench", "minimize", "--methods", "CLUBb"], "CLUB"),
        (["bench", "arrays", "--methods", "nearest-neighbor"], "nearest-neighbors"),
        (["bench", "gaussian", "--sweep", "data.dimm=2,3"], "dim"),
        (["bench", "gaussian", "--sweep", "trainer.max_epoch=2,3"], "--trainer.max_epochs"),
        (["bench", "gaussian", "--sweep", "model.bound=DV,NWG"], "NWJ"),
        (["estimate", "x.npy", "--permutation", "9"], "--permutations"),
        (["results", "runs", "--formt", "csv"], "--format"),
        (["results", "runs", "--format", "latx"], "latex"),
        (["fit", "--config", "gausian"], "gaussian"),
        (["fit", "--config", "digits"], "bottleneck/digits, contrastive/digits, plane/digits or supervised/digits"),
        (["fit", "--config", "gausian.yaml"], "gaussian"),
        (["fit", "--cofig", "gaussian"], "--config"),
        (["fit", "gaussian"], "--config gaussian"),
        ([*GAUSSIAN, "--model.bound", "lightning_mi.bounds.NWG"], "lightning_mi.bounds.NWJ"),
        ([*GAUSSIAN, "--model.bound", "lightning_mi.bound.NWJ"], "lightning_mi.bounds"),
        ([*GAUSSIAN, "--model.bound", "lightnin_mi.bounds.NWJ"], "lightning_mi"),
        ([*GAUSSIAN, "--model.critic", "JointCritc"], "JointCritic"),
        ([*GAUSSIAN, "--model.optimizer", "torch.optim.Addam"], "torch.optim.Adam"),
        ([*GAUSSIAN, "--model.optimizer.lrr", "1"], "lr"),
        ([*GAUSSIAN, "--model.bund", "NWJ"], "bound"),
        ([*GAUSSIAN, "--modle.bound", "NWJ"], "--model.bound"),
        ([*GAUSSIAN, "--bound", "NWJ"], "--model.bound"),
        ([*GAUSSIAN, "--model.regularizer.weigth", "1"], "weight"),
        ([*GAUSSIAN, "--data", "GaussianDataModul"], "GaussianDataModule"),
        ([*GAUSSIAN, "--data.dimm=3"], "dim"),
        ([*GAUSSIAN, "--data.transform", "cubc"], "cubic"),
        ([*GAUSSIAN, "--trainer.max_epoch", "3"], "--trainer.max_epochs"),
        ([*GAUSSIAN, "--trainer.max_ep", "3"], "--trainer.max_epochs"),
        ([*GAUSSIAN, "--max_epochs", "3"], "--trainer.max_epochs"),
        ([*GAUSSIAN, "--trainr.max_epochs", "3"], "--trainer.max_epochs"),
        ([*GAUSSIAN, "--trainer.callbacks+=Prbes"], "Probes"),
        ([*GAUSSIAN, "--ckpt", "last"], "--ckpt_path"),
    ],
)
def test_misspelled_name_gets_the_right_suggestion(arguments, suggestion, here, capsys):
    assert error_with_status_2(arguments, capsys).partition("Did you mean ")[2].partition("?")[0] == suggestion
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("max_epochs", "max_epochs"), ("hidden", "hidden"), ("trainer", "trainer.accelerator"), ("critic", "critic")],
)
def test_misspelled_key_of_a_file_gets_a_suggestion(key, suggestion, here, capsys):
    recipe = find_file("gaussian", "recipe").path.read_text()
    Path("broken.yaml").write_text(recipe.replace(f"{key}:", f"{key}x:", 1))
    assert f"Did you mean {suggestion}?" in error_of(["fit", "--config", "broken.yaml"], capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looses": []}, "unknown key looses; known: .* Did you mean losses?"),
        ({"recipe": "gausian"}, "there is no recipe called 'gausian'. Did you mean gaussian?"),
        ({"report": "gausian"}, "Got report 'gausian': mine.yaml has .* Did you mean gaussian?"),
    ],
)
def test_misspelled_key_of_a_grid_gets_a_suggestion(changes, message, here, capsys):
    document = yaml.safe_load(find_file("gaussian", "benchmark").path.read_text())
    Path("mine.yaml").write_text(yaml.safe_dump(document | changes))
    assert re.search(message.replace("?", r"\?"), error_with_status_2(["bench", "mine.yaml"], capsys))


@pytest.mark.parametrize(
    "arguments",
    [["bench", "gaussian", "--seed", "1"], ["cp", "gaussian", "--forc"], ["pairwise", "a.csv", "--adj", "fdr"]],
)
def test_options_have_no_abbreviations(arguments, here, capsys):
    assert "unrecognized arguments" in error_with_status_2(arguments, capsys)


def test_null_sets_the_literal_form_at_any_depth(here):
    options = ["--model.bound", "lightning_mi.bounds.NWJ", "--model.bound.cap", "null", "--trainer.max_steps=1"]
    assert main([*GAUSSIAN, *QUIET, WATCH, "--data.val_batches=1", *options]) == 0
    assert Watch.module.bound.cap is None


def test_progress_bar_of_a_recipe_can_be_disabled(here):
    options = ["--trainer.enable_progress_bar", "false", "--trainer.fast_dev_run=true"]
    assert main(["fit", "--config", "onehot", "--trainer.accelerator=cpu", *options]) == 0


def test_bar_and_last_line_show_the_estimate_with_its_error(here, capsys):
    options = ["--data.steps=6", "--data.batch_size=8", f"--trainer.callbacks={__name__}.Bar"]
    assert main(["fit", "--config", "onehot", *QUIET[:1], *QUIET[2:3], *options]) == 0
    mi, error = Bar.metrics["val/mi"], Bar.metrics["val/mi_standard_error"]
    assert error > 0
    assert f"val/mi {mi:.2f} +- {error:.2f} nats (truth: 2.77)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "widths"),
    [(["--data.dim", "5"], (5, 5)), (["--data.init_args.dim=5", "--model.critic.y_dim=5"], (5, 5)), ([], (20, 20))],
)
def test_dimension_of_the_data_sets_that_of_the_critic(options, widths, here):
    quick = ["--data.mi=2", "--trainer.max_steps=1", "--data.val_batches=1"]
    assert main([*GAUSSIAN, *QUIET, WATCH, *quick, *options]) == 0
    assert (Watch.module.critic.x_dim, Watch.module.critic.y_dim) == widths


def test_explicit_value_wins_over_a_linked_one(here, capsys):
    assert main([*GAUSSIAN, "--data.dim=5", "--model.critic.x_dim=7", "--print_config"]) == 0
    critic = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["critic"]["init_args"]
    assert (critic["x_dim"], critic["y_dim"]) == (7, 5)
