"""``python -m tubelet``, for torchrun: ``torchrun --nproc-per-node 2 -m tubelet train ...``."""

import sys

from tubelet.cli import main

sys.exit(main())
