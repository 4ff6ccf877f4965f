"""What comes out and how it is committed: schemas, plan, writer, ledger, compaction."""
