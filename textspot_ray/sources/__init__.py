"""From the URIs of a user to items and their bytes: folders, lists, archives and tables."""
