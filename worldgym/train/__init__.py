"""Training loops: plain, resumable, one file each."""
