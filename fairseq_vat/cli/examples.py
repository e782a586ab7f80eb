"""A command line to copy for each subcommand, the last thing in its help."""

EXAMPLES = {
    "tokenize": "fairseq-vat tokenize --train train.txt --valid valid.txt --test test.txt "
    "--output corpus",
    "show": "fairseq-vat show --mean generated/mean --samples generated/samples -n 5",
    "prepare": "fairseq-vat prepare --train train.txt --valid valid.txt --test test.txt "
    "--output corpus",
    "train": "fairseq-vat train vat_small corpus/data-bin checkpoints --max-update 10000",
    "pack": "fairseq-vat pack checkpoints my-model",
    "plot": "fairseq-vat plot checkpoints/train.log --output figures",
    "report": "fairseq-vat report checkpoints --data corpus/data-bin --output report.html",
    "reconstruct": "fairseq-vat reconstruct checkpoints --input sentences.txt",
    "sample": "fairseq-vat sample 'Models have shown promise.' --samples 8",
    "vary": "fairseq-vat vary 'Models have shown [promise].' --temperature 2",
    "interpolate": "fairseq-vat interpolate 'I want to talk.' 'It was my turn.'",
    "arithmetic": "fairseq-vat arithmetic checkpoints --input three-columns.tsv",
    "prior": "fairseq-vat prior checkpoints --samples 10",
    "embed": "fairseq-vat embed checkpoints --input sentences.txt --output vectors.npy",
    "encode": "fairseq-vat encode checkpoints --input sentences.txt --output latents.npz",
    "decode": "fairseq-vat decode checkpoints --input latents.npz",
    "evaluate": "fairseq-vat evaluate checkpoints --data corpus/data-bin --sentences 1000",
    "isotropy": "fairseq-vat isotropy checkpoints --text sentences.txt --sentences 1000",
    "classify": "fairseq-vat classify checkpoints --train train.tsv --valid valid.tsv "
    "--test test.tsv",
    "probe": "fairseq-vat probe checkpoints --cv labelled.tsv --mode features,finetune",
    "sts": "fairseq-vat sts checkpoints --sts sts12,stsb/test.tsv",
}
