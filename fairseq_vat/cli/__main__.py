"""``python -m fairseq_vat.cli`` is ``fairseq-vat``."""

import sys

from fairseq_vat.cli.main import main

sys.exit(main())
