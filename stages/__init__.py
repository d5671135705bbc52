"""The stages of the pipeline: pure functions over batches of records, with no storage and no scheduler."""
