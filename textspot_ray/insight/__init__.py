"""What people do with the tables: query, search, export, view, diff, evaluate."""
