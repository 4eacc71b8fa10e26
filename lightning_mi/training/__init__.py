"""What MIEstimationModule delegates to: one step, epoch metrics, non-finite policy, optimizer, probe, prediction."""
