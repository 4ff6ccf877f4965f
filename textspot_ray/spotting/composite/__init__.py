"""The composite family: Mask R-CNN-like detector and attention reader (text-spotting-0003)."""
