"""TensorBoardLayout: charts, figures, histograms and the HPARAMS table."""
