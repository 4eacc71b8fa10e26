"""StabilityMonitor: windows of training steps, the criteria for drift and explosion, rollback."""
