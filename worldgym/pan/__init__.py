"""PAN (arXiv 2511.09057): a language-model backbone that predicts states, a video diffusion decoder that shows them."""
