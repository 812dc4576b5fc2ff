"""Large collections of recordings: a manifest lists them, shards of it are processed one by one, on one machine or many.

A shard is a number of consecutive rows of the manifest. Its result is one Parquet file, written atomically under a name that
contains a hash of the shard's rows and of all settings. A run that is interrupted in any way loses at most the shards in
progress, and the next run skips the shards whose files exist.
"""
