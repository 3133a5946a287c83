"""What happens beside training: logs, and samples of what the model says."""
