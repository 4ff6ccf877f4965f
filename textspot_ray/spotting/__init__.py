"""What the model does: bundles, runtime, tiling; model families follow `family`. No Ray here."""
