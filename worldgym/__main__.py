"""`python -m worldgym`, and `accelerate launch -m worldgym`."""

from .cli import main

if __name__ == "__main__":
    main()
