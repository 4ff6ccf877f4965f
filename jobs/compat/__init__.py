"""Compatibility matrix: every kind of input, written by real tools, read by the product.

python -m jobs.compat                   # all groups, a table on stdout
python -m jobs.compat --group tiff      # one group
python -m jobs.compat --keep FOLDER     # and keep the files that were made
"""
