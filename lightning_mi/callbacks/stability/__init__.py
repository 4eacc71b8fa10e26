"""StabilityMonitor: blocks of training steps, criteria for drift and explosion, rollback."""
