"""Where pixels come from: storage, sources, listings, readers and image decoding."""
