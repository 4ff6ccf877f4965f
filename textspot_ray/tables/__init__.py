"""The output tables, and how they are committed.

An output folder::

    README.md                        for people, and the Hub's `datasets` (`maintenance.readme`)
    words/ images/ errors/           data files of the three tables (`schema`)
    words_by_text/                   slim copy of words, sorted by text; made by compact
    _textspot/
        table.json                   fingerprint and version; put before anything else
        plan/<seq>.parquet           items and how they are cut into shards (`segment`, `plan`)
        done/<plan>-<shard>.<gen>.json   one record per shard and generation (`commit_record`)
        snap/<n>.json                snapshots, and the manifests they name (`snapshot`)
        runs/<run_id>.json           configuration and report of each run
        tmp/                         files being written

All files that decide (table, segments, records, snapshots) are put only if absent: of several
writers one wins, and a writer that is killed has either won or left litter. Data files count only
if a record or the latest snapshot names them. A shard goes through `Plan.tasks` → `Plan.load` →
`ShardWriter.add` → `ShardWriter.commit` → `Ledger.note`; a reader begins with `open_tables`.
"""
