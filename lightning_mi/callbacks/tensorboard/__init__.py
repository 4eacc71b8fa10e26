"""TensorBoardLayout: charts, histograms, figures and the HPARAMS table."""
