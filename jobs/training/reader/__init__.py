"""The reader: encoder and attention decoder, crops, training."""
