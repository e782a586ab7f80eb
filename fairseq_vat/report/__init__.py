"""``fairseq-vat report``: one self-contained HTML page about a checkpoint.

`sentences` reads what it is about, `gather` asks the model everything, and `page` puts it with
`figures` and `differences` into ``report.html.j2``.  `plots` draws a training's log into files.
"""
