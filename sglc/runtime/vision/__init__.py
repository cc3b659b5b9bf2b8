"""Images for models with a vision tower: reading, placing, and the features they give."""
