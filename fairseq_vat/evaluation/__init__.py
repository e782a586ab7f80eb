"""Numbers about a trained model, and readers for what fairseq's commands print."""
