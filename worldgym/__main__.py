"""`python -m worldgym`, as launchers call it: `accelerate launch -m worldgym train pan adapt --clips clips`."""

from .cli import main

if __name__ == "__main__":
    main()
