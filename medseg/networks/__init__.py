"""Networks, norms, the sliding window: tensors in, tensors out."""
