"""`python -m gradsim.cli`."""

import sys

from gradsim.cli.main import main

sys.exit(main())
