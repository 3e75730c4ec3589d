"""One training loop, and a file for each stage that it trains."""
