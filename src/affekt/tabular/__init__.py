"""The one reader of tables: CSV, TSV, other delimited text, JSON lines and Parquet.

Every row is read as it is written, or an error names its line. Corpora, splits and the user's own tables are all read here.
"""
