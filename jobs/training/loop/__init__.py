"""What every training shares: sessions, checkpoints, optimiser, averaged weights, log."""
