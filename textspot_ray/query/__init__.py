"""Reading tables: DuckDB views, SQL, search, statistics, pictures."""
