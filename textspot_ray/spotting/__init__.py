"""What the model does: bundles, runtime, model families, tiling. No Ray here."""
