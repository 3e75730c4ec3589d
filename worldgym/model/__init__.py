"""The network: tensors in, tensors out. It knows no files, no environments and no agents."""
