"""Parts rectangles that the detector laid around several words."""
