"""Components of MIEstimationModule: step, epoch metrics, non-finite policy, optimizer, probe, prediction."""
