"""The estimate that `fit` prints at its end."""

from pathlib import Path

from tests.helpers.command_line import Watch, short


def test_fit_prints_estimate_standard_error_and_truth(here, capsys):
    assert short("fit") == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/")]
    logged = Watch.metrics
    estimate, error, truth = (logged[f"val/{name}"] for name in ("mi", "mi_standard_error", "true_mi"))
    assert line == f"val/mi {estimate:.2f} +- {error:.2f} nats (truth: {truth:.2f})"
    assert f"{truth:.2f}" == "2.77"


def test_fit_prints_a_line_for_each_data_loader(here, capsys):
    Path("my_data.py").write_text(
        "from lightning_mi.data import OneHotDataModule\n\n\n"
        "class Data(OneHotDataModule):\n"
        "    def val_dataloader(self):\n"
        "        return [self.test_dataloader(), super().val_dataloader()]\n"
    )
    assert short("fit", "--data=my_data.Data") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/mi")]
    names = [f"val/mi/dataloader_idx_{i}" for i in range(2)]
    assert [line.partition(" ")[::2] for line in lines] == [
        (name, f"{Watch.metrics[name]:.2f} +- {Watch.metrics[error]:.2f} nats (truth: 2.77)")
        for name in names
        for error in [name.replace("mi/", "mi_standard_error/")]
    ]


def test_fit_without_validation_prints_no_estimate(here, capsys):
    assert short("fit", "--trainer.limit_val_batches=0") == 0
    assert "val/mi" not in capsys.readouterr().out
