"""Questions to the tables: DuckDB views, SQL, search, figures, reading order."""
