"""What there is to do: segments of listed items, cut into shards."""
