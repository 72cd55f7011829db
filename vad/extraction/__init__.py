"""From videos to a feature store: find them, share them out, extract each, note what failed."""
