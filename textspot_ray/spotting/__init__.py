"""What the model does: contract, bundles, detector, recognizer and geometry. No Ray here."""
