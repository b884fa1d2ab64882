"""`python -m hourglass`"""

from hourglass.cli import main

main()
