"""Where bytes lie: fsspec drivers, atomic puts of whole files, transient faults."""
