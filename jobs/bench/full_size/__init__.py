"""The published networks at full size with random weights: the speed is real, the words are not."""
