"""From text to a trained model, through fairseq's own commands."""
