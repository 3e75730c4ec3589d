"""Other pictures of the same maps: what shows a dream, if not the tokenizer's own decoder."""
