"""Many critics trained on one stream of batches."""
