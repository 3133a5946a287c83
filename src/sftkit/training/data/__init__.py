"""From shards to micro-batches: read rows, order them in an epoch, batch them, and collate them into tensors."""
