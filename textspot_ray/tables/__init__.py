"""What comes out, and how it is committed.

An output folder::

    README.md                        for people, and the Hub's `datasets` (`maintenance.readme`)
    words/ images/ errors/           data files of the three tables (`schema`)
    words_by_text/                   slim copy of words, sorted by text; made by compact
    _textspot/
        table.json                   fingerprint and version; put before anything else
        plan/<seq>.parquet           items and how they are cut into shards (`segment`, `plan`)
        done/<plan>-<shard>.<gen>.json   one record per shard and generation (`commit_record`)
        snap/<n>.json                snapshots, and the manifests they name (`snapshot`)
        runs/<run_id>.json           what each run was asked, and what it did
        tmp/                         files on their way

Everything that decides (table, segments, records, snapshots) is put if absent: of several writers
one wins, and a writer that is killed has either won or left litter. Data files count only when a
record or the latest snapshot names them. The way of a shard: `Plan.tasks` → `Plan.load` →
`ShardWriter.add` → `ShardWriter.commit` → `Ledger.note`; of a reader: `open_tables`.
"""
