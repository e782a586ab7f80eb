"""Raw text to subwords, and back."""
