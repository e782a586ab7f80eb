"""``fairseq-vat report``: one self-contained HTML page about a checkpoint.

`corpus` reads the sentences, `content` asks the model everything, `page` and what it draws on write
HTML: `sections`, `markup`, `style`, `figures`, `svg`, `differences`.
"""
