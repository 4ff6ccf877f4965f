"""How rows become part of a table: data files, commit records, manifests, snapshots, the ledger."""
